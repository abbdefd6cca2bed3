"""A PTX text, its kernels and how they are launched."""

import re

import numpy as np

from . import launches
from .instructions import Instruction, literal, split_arguments
from .launches import LOG, Launch, PTXError
from .machine import Slice
from .memory import Memory
from .types import DTYPE, UINT


class Variable:
    """A module-scope .global or .const variable; its bytes live as long as the module."""

    def __init__(self, text_type, dims, init):
        dtype = DTYPE[text_type]
        count = 1
        for d in re.findall(r"\[(\d+)\]", dims):
            count *= int(d)
        self.data = np.zeros(max(count * dtype.itemsize, 1), np.uint8)
        if init:
            words = re.findall(r"-?[\w.]+", init)
            mask = (1 << 8 * dtype.itemsize) - 1
            values = [literal(w) & mask for w in words]
            packed = np.array(values, dtype=UINT[dtype.itemsize])
            self.data[: packed.nbytes] = packed.view(np.uint8)


class Module:
    """A PTX text; kernels are parsed when first asked for."""

    def __init__(self, ptx):
        self.version = re.search(r"\.version\s+(\S+)", ptx)[1]
        self.target = re.search(r"\.target\s+([^\s,]+)", ptx)[1]
        ptx = re.sub(r"//[^\n]*", "", ptx)
        ptx = re.sub(r"/\*.*?\*/", "", ptx, flags=re.S)
        self.text = re.sub(r"^\s*\.(loc|file)\b[^\n]*$", "", ptx, flags=re.M)
        self.entries = {}
        for m in re.finditer(r"\.entry\s+([\w$]+)\s*(?:\(([^)]*)\))?", self.text):
            self.entries[m[1]] = (m[2] or "", m.end())
        self.kernels = {}
        self.variables = {}
        pattern = (
            r"(?:^|[;}])\s*(?:\.(?:visible|extern|weak|common)\s+)?\.(?:global|const)\s+"
            r"(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)((?:\[\d*\])*)\s*(?:=\s*(\{[^}]*\}|[^;]+))?;"
        )
        for m in re.finditer(pattern, self.text, re.M):
            if m[1] in DTYPE and "generic" not in (m[4] or ""):
                self.variables[m[2]] = Variable(m[1], m[3], m[4])

    def kernel(self, name=None):
        """By exact name, else the first whose (mangled) name contains `name`."""
        if name not in self.entries:
            hits = [n for n in self.entries if name is None or name in n]
            if not hits:
                raise PTXError(f"no kernel {name}; there are: {', '.join(self.entries)}")
            name = hits[0]
        if name not in self.kernels:
            self.kernels[name] = Kernel(self, name)
        return self.kernels[name]


class Kernel:
    def __init__(self, module, name):
        self.module, self.name = module, name
        params, start = module.entries[name]
        self.params = {}  # name -> (offset, size, type)
        self.param_size = 0
        for p in params.split(","):
            m = re.search(r"\.([busf]\d+)\b.*?([\w$]+)\s*(?:\[(\d+)\])?\s*$", p.strip(), re.S)
            if not m:
                continue
            size = DTYPE[m[1]].itemsize * int(m[3] or 1)
            align = re.search(r"\.param\s+\.align\s+(\d+)", p)
            align = int(align[1]) if align else DTYPE[m[1]].itemsize
            self.param_size = -(-self.param_size // align) * align
            self.params[m[2]] = (self.param_size, size, m[1] if m[3] is None else None)
            self.param_size += size
        body = module.text.index("{", start)
        directives = module.text[start:body]
        m = re.search(r"\.maxntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", directives)
        self.max_threads = int(np.prod([int(x or 1) for x in m.groups()])) if m else 1024
        m = re.search(r"\.reqntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", directives)
        self.required_block = tuple(int(x or 1) for x in m.groups()) if m else None
        self.code, self.labels, self.tables, self.widths = [], {}, {}, {}
        end = self._parse(module.text, body)
        self.source = module.text[body:end]
        self._layout()
        fences = r"\b(membar\.(gl|sys)|fence\S*\.(gpu|sys)|atom\S*\.(acquire|acq_rel))"
        self.fences = re.search(fences, self.source) is not None

    def _layout(self):
        """Offsets of shared and local variables."""
        pattern = r"\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)((?:\[\d*\])*)\s*;"
        self.symbols = {}
        size = {"shared": 0, "local": 0}
        dynamic = []
        for m in re.finditer(pattern, self.module.text):
            uses = len(re.findall(rf"(?<![\w$]){re.escape(m[4])}(?![\w$])", self.source))
            declared_here = m[0] in self.source
            if m[4] in self.symbols or uses <= declared_here:
                continue
            if m[5] == "[]":
                dynamic.append(m[4])
                continue
            count = int(np.prod([int(d) for d in re.findall(r"\d+", m[5])] or [1]))
            align = int(m[2] or DTYPE[m[3]].itemsize)
            size[m[1]] = -(-size[m[1]] // align) * align
            self.symbols[m[4]] = size[m[1]]
            size[m[1]] += count * DTYPE[m[3]].itemsize
        self.static_shared, self.local_size = size["shared"], -(-size["local"] // 16) * 16
        if dynamic:
            self.static_shared = -(-self.static_shared // 16) * 16
            self.symbols.update(dict.fromkeys(dynamic, self.static_shared))

    def _parse(self, text, start):
        scopes, counter, buf = [], 0, ""
        for m in re.compile(r"([^;{}]*)([;{}])").finditer(text, start):
            buf += m[1]
            while label := re.match(r"\s*([\w$%]+)\s*:(?!:)", buf):
                self.labels[label[1]] = len(self.code)
                buf = buf[label.end() :]
            if m[2] == "{" and not buf.strip():
                scopes.append({})
                counter += 1
                buf = ""
            elif m[2] == "}" and not buf.strip():
                scopes.pop()
                if not scopes:
                    return m.end()
            elif m[2] == ";":
                self._statement(buf.strip(), scopes, counter)
                buf = ""
            else:
                buf += m[2]
        raise PTXError(f"{self.name}: unbalanced braces")

    def _statement(self, s, scopes, counter):
        if s.startswith(".reg"):
            _, t, names = s.split(None, 2)
            width = 0 if t == ".pred" else DTYPE[t[1:]].itemsize
            for r in names.split(","):
                r = r.strip()
                if len(scopes) > 1:
                    scopes[-1][r] = f"{r}@{counter}"
                    r = scopes[-1][r]
                many = re.fullmatch(r"(.*)<(\d+)>", r)
                if many:
                    self.widths.update({f"{many[1]}{i}": width for i in range(int(many[2]))})
                else:
                    self.widths[r] = width
        elif ".branchtargets" in s:
            self.tables[len(self.code)] = split_arguments(s.split(".branchtargets")[1])
        elif s and not s.startswith("."):
            for scope in scopes[1:]:
                for old, new in scope.items():
                    s = re.sub(rf"(?<![\w$%@]){re.escape(old)}(?![\w$@])", new, s)
            self.code.append(Instruction(s))

    def pack_arguments(self, args):
        """Parameter block from Python numbers (or bytes, for parameters passed by value)."""
        if len(args) > len(self.params):
            raise PTXError(f"{self.name}: {len(args)} arguments for {len(self.params)} parameters")
        block = np.zeros(max(self.param_size, 1), np.uint8)
        for (offset, size, t), value in zip(self.params.values(), args, strict=False):  # trailing ones may be missing
            if isinstance(value, (bytes, bytearray)):
                raw = np.frombuffer(value, np.uint8)
                if raw.size != size:
                    raise PTXError(f"{self.name}: a parameter of {size} bytes got {raw.size}")
            elif t is None:
                raise PTXError(f"{self.name}: pass bytes for a parameter that is an aggregate")
            elif t[0] == "f":
                raw = np.array([value], DTYPE[t]).view(np.uint8)
            else:
                if isinstance(value, float):
                    raise PTXError(f"{self.name}: float argument for a parameter of type .{t}")
                raw = np.array([int(value) & ((1 << 8 * size) - 1)], UINT[size]).view(np.uint8)
            block[offset : offset + size] = raw
        return block

    def run(self, mem, grid, block, args, shared=0):
        """Execute a launch; `shared` is the dynamic shared memory in bytes. Returns the Launch."""
        grid = tuple(int(g) for g in grid) + (1,) * (3 - len(grid))
        block = tuple(int(b) for b in block) + (1,) * (3 - len(block))
        threads = int(np.prod(block))
        if not 0 < threads <= min(self.max_threads, 1024) or min(grid) < 1:
            raise PTXError(f"{self.name}: invalid configuration, grid {grid} block {block}")
        if self.required_block not in (None, block):
            raise PTXError(f"{self.name}: block {block}, compiled for {self.required_block}")
        if max(grid[1:]) > 65535:
            raise PTXError(f"{self.name}: grid {grid} exceeds 65535 in y or z")
        launch = Launch(self.name, grid, block)
        params = self.pack_arguments(args)
        known = [v for v in self.module.variables if v in self.source]
        variables = {}
        if known:
            mapped = Memory()
            mapped.next = max([mem.next] + [b.end + 4096 for b in mem.buffers])
            for b in mem.buffers:
                mapped.add(b.base, b.raw, b.writable)
                mapped.buffers[mapped.bases.index(b.base)].written = b.written
            for v in known:
                variables[v] = mapped.alloc(self.module.variables[v].data)
            mem = mapped
        mem.forget_blocks()
        padded = -(-threads // 32) * 32
        per_block = self.static_shared + shared
        slice_blocks = max(1, min(launches.MAX_LANES // padded, launches.MAX_SHARED // max(per_block, 1)))
        total = int(np.prod(grid))
        for first in range(0, total, slice_blocks):
            last = min(first + slice_blocks, total)
            Slice(self, mem, grid, block, first, last, params, per_block, launch, variables).execute()
        LOG.append(launch)
        return launch
