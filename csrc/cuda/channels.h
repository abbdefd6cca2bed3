// CUDA kernels around channels: BatchNorm's sums, and the map of each channel that completes its gradient. Free of
// torch, so that a host compiler can build them too.
#pragma once

#include "grid.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int kChannelThreads = 256;
constexpr int channel_blocks = 4;  // 64 registers for each thread, of which ptxas by itself may take 40 and spill

struct SumArguments : Layout {
  int steps;
  Slices slices;
  Divisor columns;
  double* partial;  // [a sum each][slabs][columns]
};

inline SumArguments sum_arguments(const Geometry& g, double* partial) {
  SumArguments a;
  fill_layout(a, g);
  a.steps = static_cast<int>(g.T);
  a.slices = make_slices(g);
  a.columns = make_divisor(a.slices.columns);
  a.partial = partial;
  return a;
}

// Calls f with the first offset of each neuron of this thread's column; false where the thread has none.
template <class F>
STDANO_INLINE bool walk_column(const SumArguments& a, int64_t thread, F f) {
  const int64_t columns = a.slices.columns;
  if (thread >= a.slices.slabs * columns) return false;
  int64_t m = divide(thread, a.columns) * (a.slices.rows - 1) * columns + thread;  // slab*rows*columns + column
  for (int row = 0; row < a.slices.rows && m < a.g.N; ++row, m += columns) f(offset(a, m));
  return true;
}

template <int count>
STDANO_INLINE void store_sums(const SumArguments& a, int64_t thread, const double (&sums)[count]) {
#pragma unroll
  for (int k = 0; k < count; ++k) a.partial[k * a.slices.slabs * a.slices.columns + thread] = sums[k];
}

// The square of a float is exact in double, so no fma is needed here.
template <class scalar, class real>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    channel_sums_kernel(const scalar* __restrict__ x, const SumArguments a) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  double sums[kChannelSums] = {};
  const bool any = walk_column(a, thread, [&](int64_t at) {
#pragma unroll 4
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const double value = convert(x[at], real());
      sums[0] += value;
      sums[1] += value * value;
    }
  });
  if (any) store_sums(a, thread, sums);
}

// What is read for each channel, for `width` neighbouring neurons at a time.
template <class real>
struct TableArguments : Layout {
  int steps;
  const real* table;
  bool one_channel;  // for all neighbours
};

template <int rows, int width, class real>
STDANO_INLINE void load_table(const TableArguments<real>& a, int64_t m, Pack<real, width> (&out)[rows]) {
#pragma unroll
  for (int i = 0; i < width; ++i) {
    if (i > 0 && a.one_channel) {
#pragma unroll
      for (int r = 0; r < rows; ++r) out[r].items[i] = out[r].items[0];
    } else {
      const int64_t channel = channel_of(a, m + i);
#pragma unroll
      for (int r = 0; r < rows; ++r) out[r].items[i] = a.table[r * a.g.channels + channel];
    }
  }
}

template <class scalar, class real, int width>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    channel_affine_kernel(const scalar* grad, const scalar* __restrict__ x, scalar* out,  // out may be grad
                          const TableArguments<real> a) {
  const int64_t m = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * width;
  if (m >= a.g.N) return;
  Pack<real, width> table[3];  // centre, slope, offset
  load_table(a, m, table);
  int64_t at = offset(a, m);
#pragma unroll 2
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    const Pack<scalar, width> in = load<width>(x + at), g = load<width>(grad + at);
    Pack<scalar, width> sum;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const real distance = convert(in.items[i], real()) - table[0].items[i];
      const real added = fma_(table[1].items[i], distance, table[2].items[i]);
      sum.items[i] = convert(convert(g.items[i], real()) + added, scalar());
    }
    store(out + at, sum);
  }
}

// Starts a kernel that takes several neighbours where memory allows, or the one that takes a neuron at a time.
template <int width, class real, class Start, class Kernel, class... Pointers>
void start_widest(const Geometry& g, const void* table, Start start, Kernel wide, Kernel narrow, Pointers... pointers) {
  TableArguments<real> a;
  fill_layout(a, g);
  a.steps = static_cast<int>(g.T);
  a.table = static_cast<const real*>(table);
  a.one_channel = g.channel_stride % width == 0;
  const bool is_wide = g.inner % width == 0 && (all_aligned(width * sizeof(*pointers), pointers) && ...);
  const int64_t threads = is_wide ? (g.N + width - 1) / width : g.N;
  start(is_wide ? wide : narrow, threads, a);
}

template <class scalar, class real, class Stream>
void channel_sums(const ChannelSumsCall& call, Stream stream) {
  const SumArguments a = sum_arguments(call.g, call.sums);
  STDANO_LAUNCH((channel_sums_kernel<scalar, real>), count_blocks(a.slices.slabs * a.slices.columns, kChannelThreads),
                kChannelThreads, stream, static_cast<const scalar*>(call.x), a);
}

template <class real>
constexpr int table_width = sizeof(real) == 4 ? 4 : 1;

template <class scalar, class real, class Stream>
void channel_affine(const ChannelAffineCall& call, Stream stream) {
  const scalar *grad = static_cast<const scalar*>(call.grad), *x = static_cast<const scalar*>(call.x);
  scalar* out = static_cast<scalar*>(call.out);
  constexpr int width = table_width<real>;
  const auto start = [&](auto kernel, int64_t threads, const TableArguments<real>& a) {
    STDANO_LAUNCH(kernel, count_blocks(threads, kChannelThreads), kChannelThreads, stream, grad, x, out, a);
  };
  start_widest<width, real>(call.g, call.table, start, channel_affine_kernel<scalar, real, width>,
                            channel_affine_kernel<scalar, real, 1>, grad, x, out);
}

}  // namespace STDANO_ISA
}  // namespace stdano
