// The super neuron on the CPU: a pass from x to codes and a pass from codes to y; backward a pass for the sums and a
// pass for the gradient of x. One neuron after the other runs over a block while its rows are in the first-level cache.
#pragma once

#include "scan.h"

namespace stdano {
namespace STDANO_ISA {

// A neuron's walks over blocks that all begin at rest.
template <class real>
Array<Walk<real>> walks_of(const Members<NeuronKernels>& members, int64_t steps, int64_t columns,
                           Workspace<real>& workspace) {
  return Array<Walk<real>>(members.size(), [&](int64_t k) {
    return Walk<real>(members[k], false, steps, columns, workspace);
  });
}

template <class real>
int64_t walk_rows(const Members<NeuronKernels>& members, int64_t steps) {
  int64_t rows = 0;
  for (const auto& member : members) rows += Walk<real>::rows(*member.kernels, steps);
  return rows;
}

template <class real>
STDANO_LOOP void set_bits(const real* __restrict spikes, uint8_t* __restrict codes, int32_t bit, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = static_cast<uint8_t>(codes[i] | (-static_cast<int32_t>(spikes[i] != 0) & bit));
  }
}

inline STDANO_LOOP int64_t count_bits(const uint8_t* __restrict codes, int bit, int64_t n) {
  int32_t count = 0;
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) count += codes[i] >> bit & 1;
  return count;
}

inline void add_counts(const Block& b, const uint8_t* codes, int members, double* sums) {
  const int64_t channels = b.g.channels;
  for (int k = 0; k < members; ++k) {
    if (channels_innermost(b.g)) {
      accumulate(b, sums + k * channels, [codes, k](int64_t i) { return static_cast<double>(codes[i] >> k & 1); });
    } else {
      runs(b, [&](int64_t first, int64_t count, int64_t channel) {
        sums[k * channels + channel] += static_cast<double>(count_bits(codes + first, k, count));
      });
    }
  }
}

template <class scalar, class real>
void encode(const EncodeCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const int members = static_cast<int>(call.members.size());
  const int64_t columns = kForwardBlock, steps = kUnit;
  Workspace<real> workspace(walk_rows<real>(call.members, 1) + 2 * steps, columns);
  Workspace<uint8_t> code_space(steps, columns);
  Array<Walk<real>> walks = walks_of(call.members, 1, columns, workspace);
  real *x_buffer = workspace.take(steps), *spikes = workspace.take(steps);
  uint8_t* codes = code_space.take(steps);

  blocks_of_slabs(g, begin, end, [&](int64_t slab, const Block& block) {
    double* sums = call.sums + slab * members * g.channels;
    for (auto& walk : walks) {
      walk.prepare(block);
      walk.start_at_rest();
    }
    for (int64_t first = 0; first < g.T; first += steps) {
      const int64_t count = g.T - first < steps ? g.T - first : steps;
      const auto x = step_rows<scalar, real>(call.x, block, first, count, x_buffer, columns);
      std::memset(codes, 0, count * columns);
      for (int k = 0; k < members; ++k) {
        walks[k].advance(x, {spikes, columns}, count, nullptr, first + count == g.T, false);
        for (int64_t t = 0; t < count; ++t) set_bits(spikes + t * columns, codes + t * columns, 1 << k, block.size);
      }
      for (int64_t t = 0; t < count; ++t) {
        Memory<uint8_t, uint8_t>::write(call.codes, block, first + t, codes + t * columns);
        add_counts(block, codes + t * columns, members, sums);
      }
    }
  });
}

// Three neurons, as the paper's search has, are added in one loop; others one after the other, which gives the same.
template <class real>
STDANO_LOOP void decode_three(const uint8_t* __restrict codes, const real* __restrict table, int64_t columns,
                              real* __restrict y, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = codes[i];
    const real first = (code & 1) != 0 ? table[columns + i] : real(0);
    const real second = (code & 2) != 0 ? table[2 * columns + i] : real(0);
    const real third = (code & 4) != 0 ? table[3 * columns + i] : real(0);
    y[i] = ((table[i] + first) + second) + third;
  }
}
template <class real>
STDANO_LOOP void decode_one(const uint8_t* __restrict codes, int32_t bit, const real* __restrict table,
                            real* __restrict y, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) y[i] += (codes[i] & bit) != 0 ? table[i] : real(0);
}

template <class scalar, class real>
void decode(const DecodeCall& call, int64_t begin, int64_t end) {
  const int64_t columns = kForwardBlock, rows = 1 + call.members;
  Workspace<real> workspace(rows + 1, columns);
  real *table = workspace.take(rows), *buffer = workspace.take();
  for (int64_t index = begin; index < end; ++index) {
    const Block block = block_at(call.g, index, columns);
    expand_table(block, call.table, rows, table, columns);
    for (int64_t t = 0; t < call.g.T; ++t) {
      const StepRows<real> to = target_rows<scalar, real>(call.y, block, t, buffer, columns);
      real* y = to.data;
      block.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
        const uint8_t* codes = call.codes + offset;
        if (call.members == 3) return decode_three(codes, table + first, columns, y + first, count);
        std::memcpy(y + first, table + first, count * sizeof(real));
        for (int k = 0; k < call.members; ++k) {
          decode_one(codes, 1 << k, table + (1 + k) * columns + first, y + first, count);
        }
      });
      store_rows<scalar, real>(call.y, block, t, 1, to, buffer);
    }
  }
}

// The sum over a run of what the neuron of a bit fired at, all of it for 0, in a fixed number of partial sums: in float
// there are at most 32 terms to one.
template <class real>
STDANO_LOOP double sum_by_bit(const uint8_t* __restrict codes, int32_t bit, const real* __restrict g, int64_t n) {
  real lane[kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    const int count = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    STDANO_VECTORIZE
    for (int j = 0; j < count; ++j) lane[j] += bit == 0 || (codes[i + j] & bit) != 0 ? g[i + j] : real(0);
  }
  return sum_lanes(lane);
}

template <class scalar, class real>
void super_sums(const SuperSumsCall& call, int64_t begin, int64_t end) {
  const int64_t columns = kForwardBlock, channels = call.g.channels;
  Workspace<real> workspace(1, columns);
  Workspace<uint8_t> code_space(1, columns);
  real* buffer = workspace.take();
  uint8_t* code_buffer = code_space.take();
  blocks_of_slabs(call.g, begin, end, [&](int64_t slab, const Block& block) {
    double* sums = call.sums + slab * (1 + call.members) * channels;
    for (int64_t t = 0; t < call.g.T; ++t) {
      const real* g = load_step<scalar, real>(call.grad, block, t, buffer);
      const uint8_t* codes = load_step<uint8_t, uint8_t>(call.codes, block, t, code_buffer);
      if (channels_innermost(call.g)) {
        accumulate(block, sums, [=](int64_t i) { return static_cast<double>(g[i]); });
        for (int k = 0; k < call.members; ++k) {
          accumulate(block, sums + (k + 1) * channels,
                     [=](int64_t i) { return (codes[i] >> k & 1) != 0 ? static_cast<double>(g[i]) : 0.0; });
        }
        continue;
      }
      runs(block, [&](int64_t first, int64_t count, int64_t channel) {
        for (int k = 0; k <= call.members; ++k) {
          sums[k * channels + channel] += sum_by_bit(codes + first, k == 0 ? 0 : 1 << (k - 1), g + first, count);
        }
      });
    }
  });
}

// Backward keeps all steps of a neuron, however many they are, so there are no checkpoints.
inline int64_t super_block(const Geometry& g) {
  const int64_t size = kBackwardWork / (g.T > 0 ? g.T : 1);
  return size < 64 ? 64 : size < 256 ? size : 256;
}

inline int64_t count_super_blocks(const Geometry& g) { return (g.N + super_block(g) - 1) / super_block(g); }

// The gradient of a neuron's spikes from that of y; table: a row each of a, silent and fired.
template <class real>
STDANO_LOOP void spike_gradient(const real* __restrict table, int64_t columns, const uint8_t* __restrict codes, int bit,
                                const real* __restrict gy, real* __restrict gs, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const bool fired = (codes[i] >> bit & 1) != 0;
    gs[i] = fma_(table[i], gy[i], fired ? table[2 * columns + i] : table[columns + i]);
  }
}

template <class scalar, class real>
void super_backward(const SuperBackwardCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const int members = static_cast<int>(call.members.size());
  const int64_t columns = super_block(g), T = g.T;
  Workspace<real> workspace(walk_rows<real>(call.members, T) + 3 * members + 5 * T, columns);
  Workspace<uint8_t> code_space(1, columns);
  Array<Walk<real>> walks = walks_of(call.members, T, columns, workspace);
  real *table = workspace.take(3 * members), *x_rows = workspace.take(T), *gy_rows = workspace.take(T);
  real *gx_rows = workspace.take(T), *gs_rows = workspace.take(T), *own_rows = workspace.take(T);
  uint8_t* code_buffer = code_space.take();
  const real* const nothing[kMostStates] = {};

  for (int64_t index = begin; index < end; ++index) {
    const Block block = block_at(g, index, columns);
    const int64_t n = block.size;
    expand_table(block, call.table, 3 * members, table, columns);
    const auto x = step_rows<scalar, real>(call.x, block, 0, T, x_rows, columns);
    const auto gy = step_rows<scalar, real>(call.grad, block, 0, T, gy_rows, columns);
    const auto gx = target_rows<scalar, real>(call.grad_x, block, 0, gx_rows, columns);
    for (int k = 0; k < members; ++k) {
      for (int64_t t = 0; t < T; ++t) {
        const uint8_t* codes = load_step<uint8_t, uint8_t>(call.codes, block, t, code_buffer);
        spike_gradient(table + 3 * k * columns, columns, codes, k, gy.data + t * gy.stride, gs_rows + t * columns, n);
      }
      const StepRows<real> out = k == 0 ? gx : StepRows<real>{own_rows, columns};
      Walk<real>& walk = walks[k];
      walk.prepare(block);
      walk.start_back(nothing);
      walk.start_at_rest();
      walk.keep(x, out, T, true, false);
      walk.retreat(x, {gs_rows, columns}, out, false, [](int64_t, real* const*) {});
      for (int64_t t = 0; k > 0 && t < T; ++t) add_to(gx.data + t * gx.stride, own_rows + t * columns, n);
    }
    store_rows<scalar, real>(call.grad_x, block, 0, T, gx, gx_rows);
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
