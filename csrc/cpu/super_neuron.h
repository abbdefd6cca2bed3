// The super neuron on the CPU: a pass from x to codes and a pass from codes to y; backward a pass for the sums and a
// pass for the gradient of x. One neuron after the other runs over a block while its rows are in the first-level cache.
#pragma once

#include "super_loops.h"

namespace stdano {
namespace STDANO_ISA {

// Time steps [first, first + count) of a block's tensor: where they lie, if one stride apart, or copied into rows.
template <class real>
struct StepRows {
  const real* data;
  int64_t stride;
};
template <class scalar, class real>
StepRows<real> step_rows(const void* base, const Block& b, int64_t first, int64_t count, real* buffer,
                         int64_t columns) {
  if constexpr (std::is_same<scalar, real>::value) {
    if (b.contiguous()) return {static_cast<const real*>(base) + b.offset(first), b.g.inner};
  }
  for (int64_t t = 0; t < count; ++t) Rows<scalar, real>::copy(base, b, first + t, buffer + t * columns);
  return {buffer, columns};
}

// Codes of a time step from the working form to bytes, and the spikes they hold.
inline STDANO_LOOP void store_codes(const int32_t* __restrict codes, uint8_t* __restrict out, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(codes[i]);
}

inline STDANO_LOOP void count_spikes(const int32_t* __restrict codes, int64_t n, int32_t* counts) {
  int32_t lif = 0, llif = 0, slif = 0;
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    lif += codes[i] & 1;
    llif += codes[i] >> 1 & 1;
    slif += codes[i] >> 2 & 1;
  }
  counts[0] = lif;
  counts[1] = llif;
  counts[2] = slif;
}

inline void add_counts(const Block& b, const int32_t* codes, double* sums) {
  const int64_t channels = b.g.channels;
  if (channels_innermost(b.g)) {
    for (int k = 0; k < kSuperNeurons; ++k) {
      accumulate(b, sums + k * channels, [codes, k](int64_t i) { return static_cast<double>(codes[i] >> k & 1); });
    }
    return;
  }
  runs(b, [&](int64_t first, int64_t count, int64_t channel) {
    int32_t counts[kSuperNeurons];
    count_spikes(codes + first, count, counts);
    for (int k = 0; k < kSuperNeurons; ++k) sums[k * channels + channel] += counts[k];
  });
}

template <class scalar, class real>
void encode(const EncodeCall& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const bool is_short = g.T == kShort;
  const int64_t columns = kForwardBlock, rows = is_short ? kShort : 1;
  Workspace<real> workspace(2 * kSuperNeurons + kMostKept + rows, columns);
  Workspace<int32_t> code_space(rows, columns);
  real *states = workspace.take(2 * kSuperNeurons), *kept = workspace.take(kMostKept);
  real* x_buffer = workspace.take(rows);
  int32_t* codes = code_space.take(rows);

  blocks_of_slabs(g, begin, end, [&](int64_t slab, const Block& block) {
    double* sums = call.sums + slab * kSuperNeurons * g.channels;
    const int64_t n = block.size;
    // The steps [first, first + count) of the neurons; all of a short sequence at once.
    const auto run = [&](const StepRows<real>& x, int64_t first, int64_t count) {
      std::memset(codes, 0, count * columns * sizeof(int32_t));
      for_each_member<real>(call.neurons, [&](int k, auto loops, const auto& s) {
        real *v = states + 2 * k * columns, *adapt = v + columns;
        if constexpr (loops.has_short_loops) {
          if (is_short) {
            return loops.template encode_all<kShort>(s.constants, s.settings, x.data, x.stride, codes, columns, 1 << k,
                                                     n);
          }
        }
        if (first == 0) loops.rest(s, v, adapt, n);
        for (int64_t t = 0; t < count; ++t) {
          loops.encode({s.constants, nullptr, 0}, s.settings, x.data + t * x.stride, v, adapt, kept,
                       codes + t * columns, 1 << k, columns, first + t == 0, n);
        }
      });
      for (int64_t t = 0; t < count; ++t) {
        const int32_t* row = codes + t * columns;
        block.pieces(first + t, [&](int64_t offset, int64_t from, int64_t size) {
          store_codes(row + from, call.codes + offset, size);
        });
        add_counts(block, row, sums);
      }
    };
    for (int64_t t = 0; t < g.T; t += rows) run(step_rows<scalar>(call.x, block, t, rows, x_buffer, columns), t, rows);
  });
}

template <class real>
STDANO_LOOP void decode_loop(const uint8_t* __restrict codes, const real* __restrict table, int64_t columns,
                             real* __restrict y, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = codes[i];
    const real lif = (code & 1) != 0 ? table[columns + i] : real(0);
    const real llif = (code & 2) != 0 ? table[2 * columns + i] : real(0);
    const real slif = (code & 4) != 0 ? table[3 * columns + i] : real(0);
    y[i] = ((table[i] + lif) + llif) + slif;
  }
}

template <class scalar, class real>
void decode(const DecodeCall& call, int64_t begin, int64_t end) {
  const int64_t columns = kForwardBlock;
  Workspace<real> workspace(kDecodeRows + 1, columns);
  real *table = workspace.take(kDecodeRows), *buffer = workspace.take();
  for (int64_t index = begin; index < end; ++index) {
    const Block block = forward_block(call.g, index);
    expand_table(block, call.table, kDecodeRows, table, columns);
    for (int64_t t = 0; t < call.g.T; ++t) {
      real* y = Rows<scalar, real>::target(call.y, block, t, buffer);
      block.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
        decode_loop(call.codes + offset, table + first, columns, y + first, count);
      });
      Rows<scalar, real>::store(call.y, block, t, y);
    }
  }
}

// Sums over a run in a fixed number of partial ones: in float there are at most 32 terms to one.
template <class real>
STDANO_LOOP void sum_by_code(const uint8_t* __restrict codes, const real* __restrict g, int64_t n, double* sums) {
  real lane[kSuperSums][kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    const int count = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    STDANO_VECTORIZE
    for (int j = 0; j < count; ++j) {
      const int32_t code = codes[i + j];
      const real gy = g[i + j];
      lane[0][j] += gy;
      lane[1][j] += (code & 1) != 0 ? gy : real(0);
      lane[2][j] += (code & 2) != 0 ? gy : real(0);
      lane[3][j] += (code & 4) != 0 ? gy : real(0);
    }
  }
  for (int k = 0; k < kSuperSums; ++k) sums[k] += sum_lanes(lane[k]);
}

template <class scalar, class real>
void super_sums(const SuperSumsCall& call, int64_t begin, int64_t end) {
  const int64_t columns = kForwardBlock, channels = call.g.channels;
  Workspace<real> workspace(1, columns);
  Workspace<uint8_t> code_space(1, columns);
  real* buffer = workspace.take();
  uint8_t* code_buffer = code_space.take();
  blocks_of_slabs(call.g, begin, end, [&](int64_t slab, const Block& block) {
    double* sums = call.sums + slab * kSuperSums * channels;
    for (int64_t t = 0; t < call.g.T; ++t) {
      const real* g = Rows<scalar, real>::load(call.grad, block, t, buffer);
      const uint8_t* codes = Rows<uint8_t, uint8_t>::load(call.codes, block, t, code_buffer);
      if (channels_innermost(call.g)) {
        accumulate(block, sums, [=](int64_t i) { return static_cast<double>(g[i]); });
        for (int k = 0; k < kSuperNeurons; ++k) {
          accumulate(block, sums + (k + 1) * channels,
                     [=](int64_t i) { return (codes[i] >> k & 1) != 0 ? static_cast<double>(g[i]) : 0.0; });
        }
        continue;
      }
      runs(block, [&](int64_t first, int64_t count, int64_t channel) {
        double of_run[kSuperSums] = {};
        sum_by_code(codes + first, g + first, count, of_run);
        for (int k = 0; k < kSuperSums; ++k) sums[k * channels + channel] += of_run[k];
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

template <class scalar, class real>
void super_backward(const SuperBackwardCall& call, int64_t begin, int64_t end) {
  constexpr bool same = std::is_same<scalar, real>::value;
  const Geometry& g = call.g;
  const int64_t columns = super_block(g), T = g.T;
  Workspace<real> workspace(kSuperBackwardRows + 4 + T * (kMostKept + 4), columns);
  real *table = workspace.take(kSuperBackwardRows), *x_rows = workspace.take(T), *gy_rows = workspace.take(T);
  real *gx_rows = workspace.take(T), *v_kept = workspace.take(T), *kept = workspace.take(T * kMostKept);
  real *v = workspace.take(), *adapt = workspace.take(), *gv = workspace.take(), *gadapt = workspace.take();

  for (int64_t index = begin; index < end; ++index) {
    const Block block = block_at(g, index, columns), next = block_at(g, index + 1, columns);
    const int64_t n = block.size;
    prefetch<false>(static_cast<const scalar*>(call.x), next);
    prefetch<false>(static_cast<const scalar*>(call.grad), next);
    prefetch<true>(static_cast<scalar*>(call.grad_x), next);
    expand_table(block, call.table, kSuperBackwardRows, table, columns);
    const StepRows<real> x = step_rows<scalar>(call.x, block, 0, T, x_rows, columns);
    const StepRows<real> gy = step_rows<scalar>(call.grad, block, 0, T, gy_rows, columns);
    const bool in_place = same && block.contiguous();
    real* gx = in_place ? static_cast<real*>(call.grad_x) + block.offset(0) : gx_rows;
    const int64_t gx_stride = in_place ? g.inner : columns;
    for (int64_t t = 0; t < T; ++t) std::memset(gx + t * gx_stride, 0, n * sizeof(real));
    for_each_member<real>(call.neurons, [&](int k, auto loops, const auto& s) {
      using S = decltype(loops);
      const typename S::View c{s.constants, nullptr, 0};
      const Options& o = call.neurons.o[k];
      const real alpha = real(o.alpha);
      const real* of_member = table + 3 * k * columns;
      if constexpr (S::has_short_loops) {
        if (T == kShort) {
          return with_surrogate(o.surrogate, [&](auto kind) {
            S::template adjoint_all<decltype(kind)::value, kShort>(s.constants, s.settings, alpha, x.data, x.stride,
                                                                   gy.data, gy.stride, of_member, columns, gx,
                                                                   gx_stride, n);
          });
        }
      }
      S::rest(s, v, adapt, n);
      for (int64_t t = 0; t < T; ++t) {
        S::L::template advance<true>(c, s.settings, x.data + t * x.stride, v, adapt, nullptr,
                                     kept + t * kMostKept * columns, v_kept + t * columns, columns, t == 0, n);
      }
      for (int64_t i = 0; i < n; ++i) gv[i] = gadapt[i] = 0;
      with_surrogate(o.surrogate, [&](auto kind) {
        for (int64_t t = T - 1; t >= 0; --t) {
          S::template adjoint<decltype(kind)::value>(c, s.settings, alpha, x.data + t * x.stride, v_kept + t * columns,
                                                     kept + t * kMostKept * columns, gy.data + t * gy.stride,
                                                     of_member, gv, gadapt, gx + t * gx_stride, columns, n);
        }
      });
    });
    for (int64_t t = 0; !in_place && t < T; ++t) Rows<scalar, real>::write(call.grad_x, block, t, gx + t * columns);
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
