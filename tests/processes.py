"""Commands in processes of their own. What they may take is processor time, which does not depend on what else the
machine is doing; a process that waits in vain is ended after an hour."""

import subprocess

PROCESSOR_SECONDS = 600
HANG_SECONDS = 3600


def run(command, *, seconds=PROCESSOR_SECONDS, check=False, **options):
    """subprocess.run with the output as text. Each process that the command starts may take ``seconds`` of processor
    time; the system then ends it. With ``check`` a command that fails is an error that shows what it printed."""
    limited = ["/bin/sh", "-c", f'ulimit -t {seconds}; exec "$@"', "sh", *map(str, command)]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=HANG_SECONDS, **options)
    if check:
        assert done.returncode == 0, f"{command} returned {done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done
