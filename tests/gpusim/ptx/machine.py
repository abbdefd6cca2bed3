"""Executes a kernel for a slice of the grid.

All threads are lanes of one vector machine: each instruction is executed for all active lanes at once. Threads that
diverge are kept in groups, one for each program counter, and the group with the smallest program counter runs first, so
that structured code reconverges.
"""

import numpy as np

from . import launches
from .instructions import Instruction
from .launches import AccessError, PTXError
from .spaces import Spaces


class Slice(Spaces):
    """The state of blocks first..last-1 of one launch."""

    def __init__(self, kernel, mem, grid, block, first, last, params, shared, launch, variables):
        self.kernel, self.mem, self.params, self.launch = kernel, mem, params, launch
        self.ops = launch.ops
        threads = int(np.prod(block))
        self.padded = -(-threads // 32) * 32
        self.blocks = last - first
        n = self.n = self.blocks * self.padded
        lane = np.arange(n, dtype=np.int64)
        self.cta = lane // self.padded  # block within the slice
        self.block_id = (self.cta + first).astype(np.int32)
        self.warp = lane // 32
        thread = (lane % self.padded).astype(np.uint32)
        self.thread = thread
        self.block_shape, self.grid_shape = block, grid
        b = self.block_id.astype(np.uint32)
        one = np.ones(1, np.uint32)
        sp = self.special = {}
        for i, axis in enumerate("xyz"):
            tdiv = np.uint32(int(np.prod(block[:i])))
            bdiv = np.uint32(int(np.prod(grid[:i])) & 0xFFFFFFFF)
            sp[f"%tid.{axis}"] = thread // tdiv % np.uint32(block[i])
            sp[f"%ctaid.{axis}"] = b // bdiv % np.uint32(grid[i])
            sp[f"%ntid.{axis}"] = one * np.uint32(block[i])
            sp[f"%nctaid.{axis}"] = one * np.uint32(grid[i])
        laneid = thread % np.uint32(32)
        sp["%laneid"] = laneid
        sp["%warpid"] = thread // np.uint32(32)
        sp["%nwarpid"] = one * np.uint32(self.padded // 32)
        sp["%smid"] = sp["%gridid"] = one * np.uint32(0)
        sp["%nsmid"] = one
        bit = one << laneid
        sp["%lanemask_eq"] = bit
        sp["%lanemask_lt"] = bit - one
        sp["%lanemask_le"] = (bit - one) | bit
        sp["%lanemask_gt"] = ~((bit - one) | bit)
        sp["%lanemask_ge"] = ~(bit - one)
        sp["%dynamic_smem_size"] = one * np.uint32(shared - kernel.static_shared)
        sp["WARP_SZ"] = one * np.uint32(32)
        for name, offset in kernel.symbols.items():
            sp[name] = np.array([offset], np.uint64)
        for name, (offset, _, _) in kernel.params.items():
            sp[name] = np.array([offset], np.uint64)
        for name, address in variables.items():
            sp[name] = np.array([address], np.uint64)
        self.shared_size, self.local_size = shared, kernel.local_size
        self.shared = np.full(self.blocks * shared, 0xFF, np.uint8)
        self.local = np.full(n * self.local_size, 0xFF, np.uint8)
        self.shared_writer = self.shared_reader = None
        self.epoch = np.zeros(self.blocks, np.int64)
        self.regs = {}
        self.literals = {}
        self.live = thread < threads
        self.waiting = {}  # pc of a barrier -> lanes that arrived
        self.stuck = None
        self.warp_waiting = {}  # pc of a warp-synchronous instruction -> lanes that arrived
        self.mask, self.active = None, n
        self.block_races = launches.CHECK_BLOCK_RACES
        self.ins = None

    def execute(self):
        try:
            with np.errstate(all="ignore"):
                self._execute()
        except PTXError as e:
            where = ""
            if isinstance(e, AccessError) and e.lane is not None:
                where = " in " + self.coordinates(e.lane)
            text = f" at `{self.ins.text}`" if self.ins else ""
            raise PTXError(f"{self.kernel.name}{text}: {e}{where}") from e
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as e:
            text = self.ins.text if self.ins else ""
            message = f"{self.kernel.name} at `{text}`: not modelled ({type(e).__name__}: {e})"
            raise PTXError(message) from e

    def coordinates(self, active_lane):
        lanes = np.arange(self.n) if self.mask is None else np.nonzero(self.mask)[0]
        lane = int(lanes[active_lane])

        def split(i, shape):
            return i % shape[0], i // shape[0] % shape[1], i // shape[0] // shape[1]

        thread = split(int(self.thread[lane]), self.block_shape)
        return f"thread {thread} of block {split(int(self.block_id[lane]), self.grid_shape)}"

    def set_mask(self, mask):
        self.active = int(np.count_nonzero(mask))
        self.mask = None if self.active == self.n else mask

    def _execute(self):
        code, end = self.kernel.code, len(self.kernel.code)
        groups = {0: self.live.copy()}
        steps = 0
        while groups or self.release(groups):
            pc = min(groups)
            mask = groups.pop(pc)
            self.set_mask(mask)
            while True:
                if pc >= end:
                    self.live &= ~mask
                    break
                ins = self.ins = code[pc]
                kind = ins.kind
                steps += 1
                if steps > launches.MAX_STEPS:
                    raise PTXError("the kernel does not terminate")
                if kind == 0:
                    self.step(ins)
                elif kind == Instruction.WARP_SYNC:
                    mask = self.warp_sync(ins, pc, mask)
                    if mask is None:
                        break
                elif kind == Instruction.BARRIER:
                    here = self.predicate(ins, mask)
                    self.ops[ins.key] += int(np.count_nonzero(here))
                    if here.any():
                        self.waiting[pc] = self.waiting.get(pc, False) | here
                    if not here.all() and (mask & ~here).any():
                        groups[pc + 1] = groups.get(pc + 1, False) | (mask & ~here)
                    break
                else:
                    taken = self.predicate(ins, mask)
                    rest = mask & ~taken
                    self.ops[ins.key] += int(np.count_nonzero(taken))
                    if kind == Instruction.EXIT:
                        self.live &= ~taken
                    elif ins.name == "brx":
                        self.indexed_branch(ins, pc, taken, groups)
                    elif taken.any():
                        target = self.kernel.labels[ins.args[0]]
                        if not groups and not rest.any():
                            pc = target
                            continue
                        groups[target] = groups.get(target, False) | taken
                    if not rest.any():
                        break
                    groups[pc + 1] = groups.get(pc + 1, False) | rest
                    break
                pc += 1
                if pc in groups:
                    mask = mask | groups.pop(pc)
                    self.set_mask(mask)

    def predicate(self, ins, mask):
        if ins.pred is None:
            return mask
        p = self.regs.get(ins.pred, np.zeros(1, bool))
        return mask & (~p if ins.negate else p)

    def step(self, ins):
        """Execute a non-branching instruction for the current mask and its predicate."""
        if ins.pred is None:
            ins.run(self, ins)
            self.ops[ins.key] += self.active
            return
        p = self.regs.get(ins.pred)
        if p is None:
            p = np.zeros(1, bool)
        if ins.negate:
            p = ~p
        if self.mask is not None:
            p = p & self.mask
        elif p.size == 1:
            if p[0]:
                ins.run(self, ins)
                self.ops[ins.key] += self.active
            return
        saved = self.mask, self.active
        self.set_mask(p)
        if self.active:
            ins.run(self, ins)
            self.ops[ins.key] += self.active
        self.mask, self.active = saved

    def indexed_branch(self, ins, pc, taken, groups):
        table = self.kernel.tables.get(pc) or self.kernel.tables[max(self.kernel.tables)]
        index = np.broadcast_to(self.get(ins.args[0], "u32"), (self.n,))
        for value in np.unique(index[taken]):
            target = self.kernel.labels[table[int(value)]]
            groups[target] = groups.get(target, False) | (taken & (index == value))

    def release(self, groups):
        """No lane can run: complete the barriers. False when nothing waits."""
        if self.warp_waiting:
            state = (
                [(pc, int(m.sum())) for pc, m in self.warp_waiting.items()],
                int(self.live.sum()),
            )
            if state == self.stuck:
                self.ins = self.kernel.code[min(self.warp_waiting)]
                raise PTXError("divergent warp: threads of the member mask never arrive here")
            self.stuck = state  # try once more: others may have left the kernel meanwhile
            groups.update(self.warp_waiting)
            self.warp_waiting = {}
            return True
        if not self.waiting:
            return False
        at = np.full(self.n, -1)
        for pc, mask in self.waiting.items():
            at[mask] = pc
        by_block = at.reshape(self.blocks, self.padded)
        live = self.live.reshape(self.blocks, self.padded)
        lo = np.where(live, by_block, 1 << 40).min(1)
        hi = np.where(live, by_block, -1).max(1)
        if (lo[live.any(1)] != hi[live.any(1)]).any():
            self.ins = self.kernel.code[min(self.waiting)]
            raise PTXError("divergent barrier: threads of one block wait at different barriers")
        for pc, mask in self.waiting.items():
            self.ins = ins = self.kernel.code[pc]
            if "arrive" in ins.mods:
                raise PTXError("split barriers are not modelled")
            if "red" in ins.mods:
                self.barrier_reduction(ins, mask)
            groups[pc + 1] = groups.get(pc + 1, False) | mask
            self.epoch[np.unique(self.cta[mask])] += 1
        self.waiting = {}
        return True

    def barrier_reduction(self, ins, mask):
        self.set_mask(mask)
        source = ins.args[-1]
        p = np.broadcast_to(self.pred(source), (self.n,)) & mask
        per_block = p.reshape(self.blocks, self.padded).sum(1)
        count = mask.reshape(self.blocks, self.padded).sum(1)
        if "popc" in ins.mods:
            out = per_block.astype(np.uint32)
        elif "and" in ins.mods:
            out = per_block == count
        else:
            out = per_block > 0
        self.put(ins.args[0], out[self.cta])

    def warp_sync(self, ins, pc, mask):
        """Run a warp-synchronous instruction for the complete warps; the others wait."""
        mask = mask | self.warp_waiting.pop(pc, False)
        active = self.predicate(ins, mask)
        if ins.name == "activemask":
            complete = mask
        else:
            required = self.live
            if ins.name in ("shfl", "vote", "redux"):
                member = np.broadcast_to(self.get(ins.args[-1], "u32"), (self.n,))
                warps = np.where(active, member, np.uint32(0)).reshape(-1, 32)
                named = np.bitwise_or.reduce(warps, 1)[:, None] >> np.arange(32, dtype=np.uint32)
                required = self.live & (named & np.uint32(1)).astype(bool).reshape(-1)
            missing = (required & ~active).reshape(-1, 32).any(1)
            missing &= active.reshape(-1, 32).any(1)
            complete = mask & ~missing[self.warp]
        late = mask & ~complete
        if late.any():
            self.warp_waiting[pc] = late
        self.set_mask(complete)
        if not self.active:
            return None
        self.step(ins)
        return complete
