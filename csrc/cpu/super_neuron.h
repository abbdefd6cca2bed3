// The super neuron on the CPU: a pass from x to codes and a pass from codes to y; backward a pass for the sums and a
// pass for the gradient of x. One neuron after the other runs over a block while its rows are in the first-level cache.
#pragma once

#include <type_traits>

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

// Calls a function for as many neurons at once as registers have room for, with the number of the first and how many
// there are, which it is compiled for.
template <class Function>
void in_parts(int members, Function function) {
  for (int first = 0; first < members; first += 4) {
    const int count = members - first;
    if (count == 1) function(first, std::integral_constant<int, 1>{});
    if (count == 2) function(first, std::integral_constant<int, 2>{});
    if (count == 3) function(first, std::integral_constant<int, 3>{});
    if (count >= 4) function(first, std::integral_constant<int, 4>{});
  }
}

// Adds to the codes the bits of `count` neurons, the first of them `bit`, whose spikes lie `stride` apart.
template <int count, class real>
STDANO_LOOP void set_bits(const real* __restrict spikes, int64_t stride, int32_t bit, uint8_t* __restrict codes,
                          int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    int32_t code = codes[i];
    for (int k = 0; k < count; ++k) code |= spikes[k * stride + i] != 0 ? bit << k : 0;
    codes[i] = static_cast<uint8_t>(code);
  }
}

// How many of a block's codes have a bit set. A lane of bytes counts no further than to kForwardBlock / kLanes.
inline STDANO_LOOP int64_t count_bits(const uint8_t* codes, uint8_t bit, int64_t n) {
  uint8_t lane[kLanes] = {};
  int64_t i = 0, count = 0;
  for (; i + kLanes <= n; i += kLanes) {
    STDANO_VECTORIZE
    for (int j = 0; j < kLanes; ++j) lane[j] = static_cast<uint8_t>(lane[j] + ((codes[i + j] & bit) != 0 ? 1 : 0));
  }
  for (; i < n; ++i) count += (codes[i] & bit) != 0;
  for (int j = 0; j < kLanes; ++j) count += lane[j];
  return count;
}

inline void add_counts(const Block& b, const uint8_t* codes, int members, double* sums) {
  const int64_t channels = b.g.channels;
  if (channels_innermost(b.g)) {
    for (int k = 0; k < members; ++k) {
      accumulate(b, sums + k * channels, [codes, k](int64_t i) { return static_cast<double>(codes[i] >> k & 1); });
    }
    return;
  }
  runs(b, [&](int64_t first, int64_t count, int64_t channel) {
    for (int k = 0; k < members; ++k) {
      const int64_t own = count_bits(codes + first, static_cast<uint8_t>(1 << k), count);
      sums[k * channels + channel] += static_cast<double>(own);
    }
  });
}

template <class scalar, class real>
void encode(const EncodeCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const int members = static_cast<int>(call.members.size());
  const int64_t columns = kForwardBlock, steps = kUnit;
  Workspace<real> workspace(walk_rows<real>(call.members, 1) + (1 + members) * steps, columns);
  Workspace<uint8_t> code_space(steps, columns);
  Array<Walk<real>> walks = walks_of(call.members, 1, columns, workspace);
  real *x_buffer = workspace.take(steps), *spikes = workspace.take(members * steps);
  uint8_t* code_buffer = code_space.take(steps);

  blocks_of_slabs(g, begin, end, [&](int64_t slab, const Block& block) {
    double* sums = call.sums + slab * members * g.channels;
    for (auto& walk : walks) {
      walk.prepare(block);
      walk.start_at_rest();
    }
    for (int64_t first = 0; first < g.T; first += steps) {
      const int64_t count = g.T - first < steps ? g.T - first : steps;
      const auto x = step_rows<scalar, real>(call.x, block, first, count, x_buffer, columns);
      const auto codes = target_rows<uint8_t, uint8_t>(call.codes, block, first, code_buffer, columns);
      for (int k = 0; k < members; ++k) {
        walks[k].advance(x, {spikes + k * steps * columns, columns}, count, nullptr, first + count == g.T, false);
      }
      for (int64_t t = 0; t < count; ++t) {
        uint8_t* to = codes.data + t * codes.stride;
        const real* from = spikes + t * columns;
        std::memset(to, 0, block.size);
        in_parts(members, [&](int k, auto count) {
          set_bits<count>(from + k * steps * columns, steps * columns, 1 << k, to, block.size);
        });
      }
      for (int64_t t = 0; t < count; ++t) add_counts(block, codes.data + t * codes.stride, members, sums);
      store_rows<uint8_t, uint8_t>(call.codes, block, first, count, codes, code_buffer);
    }
  });
}

// Adds to `before`, which may be y, the rows of `count` neurons, one after the other, where they fired.
template <int count, class real>
STDANO_LOOP void decode_bits(const uint8_t* codes, int32_t bit, const real* table, int64_t columns, const real* before,
                             real* y, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = codes[i];
    real sum = before[i];
    for (int k = 0; k < count; ++k) sum += (code & bit << k) != 0 ? table[k * columns + i] : real(0);
    y[i] = sum;
  }
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
        in_parts(call.members, [&](int k, auto neurons) {
          const real *before = k == 0 ? table : y, *rows = table + (1 + k) * columns;
          decode_bits<neurons>(codes, 1 << k, rows + first, columns, before + first, y + first, count);
        });
      });
      store_rows<scalar, real>(call.y, block, t, 1, to, buffer);
    }
  }
}

// Adds the sum over a run of g to `all`, if given, and those of g where `count` neurons fired, the first of them that
// of `bit`, to sums[0], sums[stride], ... Partial sums are fixed in number, and in float they have at most 64 terms.
template <int count, class real>
STDANO_LOOP void sum_by_bit(const uint8_t* codes, int32_t bit, const real* g, int64_t n, double* all, double* sums,
                            int64_t stride) {
  constexpr int lanes = 64 / sizeof(real);
  int32_t code[kForwardBlock];  // as wide as g, without which g++ takes narrower vectors
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) code[i] = codes[i];
  real lane[1 + count][lanes] = {};
  const auto add = [&](int64_t i, int j) {
    lane[0][j] += g[i];
    for (int k = 0; k < count; ++k) lane[1 + k][j] += (code[i] & bit << k) != 0 ? g[i] : real(0);
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    STDANO_VECTORIZE
    for (int j = 0; j < lanes; ++j) add(i + j, j);
  }
  for (int j = 0; i < n; ++i, ++j) add(i, j);
  if (all) *all += sum_lanes<lanes>(lane[0]);
  for (int k = 0; k < count; ++k) sums[k * stride] += sum_lanes<lanes>(lane[1 + k]);
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
        double* own = sums + channel;
        in_parts(call.members, [&](int k, auto neurons) {
          double *all = k == 0 ? own : nullptr, *of_bits = own + (1 + k) * channels;
          sum_by_bit<neurons>(codes + first, 1 << k, g + first, count, all, of_bits, channels);
        });
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

// The gradient of a neuron's spikes from that of y.
template <class real, class Numbers>
STDANO_LOOP void spike_gradient(Numbers factor, Numbers silent, Numbers fired, const uint8_t* __restrict codes,
                                int32_t bit, const real* __restrict gy, real* __restrict gs, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) gs[i] = fma_(factor[i], gy[i], (codes[i] & bit) != 0 ? fired[i] : silent[i]);
}

template <class scalar, class real>
void super_backward(const SuperBackwardCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const int members = static_cast<int>(call.members.size());
  const int64_t columns = super_block(g), T = g.T;
  Workspace<real> workspace(walk_rows<real>(call.members, T) + 3 * members + 5 * T, columns);
  Workspace<uint8_t> code_space(T, columns);
  Array<Walk<real>> walks = walks_of(call.members, T, columns, workspace);
  Array<ChannelNumbers<real>> numbers(members, [&](int64_t k) {
    const void* table = static_cast<const real*>(call.table) + ChannelNumbers<real>::rows * k * g.channels;
    return ChannelNumbers<real>(table, workspace, columns);
  });
  real *x_rows = workspace.take(T), *gy_rows = workspace.take(T);
  real *gx_rows = workspace.take(T), *gs_rows = workspace.take(T), *own_rows = workspace.take(T);
  uint8_t* code_rows = code_space.take(T);
  const real* const nothing[kMostStates] = {};

  for (int64_t index = begin; index < end; ++index) {
    const Block block = block_at(g, index, columns);
    const int64_t n = block.size;
    const auto x = step_rows<scalar, real>(call.x, block, 0, T, x_rows, columns);
    const auto gy = step_rows<scalar, real>(call.grad, block, 0, T, gy_rows, columns);
    const auto codes = step_rows<uint8_t, uint8_t>(call.codes, block, 0, T, code_rows, columns);
    const auto gx = target_rows<scalar, real>(call.grad_x, block, 0, gx_rows, columns);
    for (int k = 0; k < members; ++k) {
      numbers[k].prepare(block);
      numbers[k].pieces(block, [&](int64_t first, int64_t count, auto factor, auto silent, auto fired, int64_t) {
        for (int64_t t = 0; t < T; ++t) {
          spike_gradient(factor, silent, fired, codes.data + t * codes.stride + first, 1 << k,
                         gy.data + t * gy.stride + first, gs_rows + t * columns + first, count);
        }
      });
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
