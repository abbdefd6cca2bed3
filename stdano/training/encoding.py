"""How samples became numbers in runs whose checkpoints do not say so: as the data say that they were trained on."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..data import DataSource, Encoding, load_data
from ..settings import DataSettings, TrainSettings
from .checkpoint import load_checkpoint
from .folder import LAST


def encoding_of_data(settings: TrainSettings, folder: Path, given: DataSettings | None) -> Encoding:
    """Reads the data of a run that an older version made.

    Args:
        settings: of the run.
        folder: of the run.
        given: data to test on, which may be the run's own in another place.

    Warns:
        RuntimeWarning: its data are not any more what they were.

    Raises:
        ValueError: they are not there.
    """
    trained_on, own, missing = load_checkpoint(folder / LAST, ("fingerprint",))["fingerprint"], settings.data, ""
    changed: DataSource | None = None
    for data in dict.fromkeys((given or own, own)):
        try:
            source = load_data(data, settings.model.T)
        except (ValueError, OSError) as error:
            missing = str(error)
            continue
        if source.fingerprint() == trained_on:
            return source.encoding
        changed = source if data == own else changed
    needs = (
        f"{folder} was made by an older version, which did not keep the mean and deviation of its training samples; "
        f"they are taken from {own.data}"
    )
    if changed is None:
        raise ValueError(f"{needs}, but that cannot be read: {missing}")
    warnings.warn(f"{needs}, which has changed since", RuntimeWarning, stacklevel=3)
    return changed.encoding
