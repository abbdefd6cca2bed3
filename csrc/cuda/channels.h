// CUDA kernels around channels: BatchNorm's sums, the map of each channel that completes its gradient, and the passes of
// a super neuron over its codes. Free of torch, so that a host compiler can build them too.
#pragma once

#include "layout.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int kChannelThreads = 256;
constexpr int channel_blocks = 4;  // 64 registers for each thread, of which ptxas by itself may take 40 and spill

struct SumArguments : Layout {
  Columns columns;
  int count;
  double* partial;  // [count][slabs][columns]
};

inline SumArguments sum_arguments(const Geometry& g, int count, double* partial) {
  SumArguments a;
  fill_layout(a, g);
  a.columns = make_columns(g, true);
  a.count = count;
  a.partial = partial;
  return a;
}

// Calls f with the first offset of each neuron of this thread's column; false where the thread has none.
template <class F>
STDANO_INLINE bool walk_offsets(const SumArguments& a, int64_t thread, F f) {
  if (thread >= a.columns.threads) return false;
  walk_column(a.columns, a.g, thread, [&](int64_t m) { f(offset(a, m)); });
  return true;
}

template <class T, int most>
STDANO_INLINE void store_sums(const SumArguments& a, int64_t thread, const T (&sums)[most]) {
#pragma unroll
  for (int k = 0; k < most; ++k) {
    if (k < a.count) a.partial[k * a.columns.threads + thread] = static_cast<double>(sums[k]);
  }
}

STDANO_INLINE int64_t this_thread() { return static_cast<int64_t>(blockIdx.x) * kChannelThreads + threadIdx.x; }

// The square of a float is exact in double, so no fma is needed here.
template <class scalar, class real>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    channel_sums_kernel(const scalar* __restrict__ x, const __grid_constant__ SumArguments a) {
  double sums[kChannelSums] = {};
  const bool any = walk_offsets(a, this_thread(), [&](int64_t at) {
#pragma unroll 4
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const double value = convert(x[at], real());
      sums[0] += value;
      sums[1] += value * value;
    }
  });
  if (any) store_sums(a, this_thread(), sums);
}

// The spikes of each neuron in codes. Four are counted at once, in the bytes of a number, up to 255 each.
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    count_kernel(const uint8_t* __restrict__ codes, const __grid_constant__ SumArguments a) {
  int64_t counts[kMostMembers] = {};
  uint32_t low = 0, high = 0;
  int counted = 0;
  const auto flush = [&] {
#pragma unroll
    for (int k = 0; k < kMostMembers; ++k) counts[k] += (k < 4 ? low : high) >> (8 * (k % 4)) & 255;
    low = high = 0;
    counted = 0;
  };
  const bool any = walk_offsets(a, this_thread(), [&](int64_t at) {
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const uint32_t code = codes[at];
      low += (code & 15) * 0x00204081u & 0x01010101u;
      high += (code >> 4) * 0x00204081u & 0x01010101u;
      if (++counted == 255) flush();
    }
  });
  flush();
  if (any) store_sums(a, this_thread(), counts);
}

template <class scalar, class real, int most>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    super_sums_kernel(const uint8_t* __restrict__ codes, const scalar* __restrict__ grad,
                      const __grid_constant__ SumArguments a) {
  double sums[1 + most] = {};
  const bool any = walk_offsets(a, this_thread(), [&](int64_t at) {
    real of_neuron[1 + most] = {};
#pragma unroll 4
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const int code = codes[at];
      const real gy = convert(grad[at], real());
      of_neuron[0] += gy;
#pragma unroll
      for (int k = 0; k < most; ++k) of_neuron[1 + k] += (code >> k & 1) != 0 ? gy : real(0);
    }
#pragma unroll
    for (int k = 0; k <= most; ++k) sums[k] += of_neuron[k];
  });
  if (any) store_sums(a, this_thread(), sums);
}

// What is read for each channel, for `width` neighbouring neurons at a time.
template <class real>
struct TableArguments : Layout {
  const real* table;
  int rows;
  int one_channel;  // for all neighbours
};

template <int most, int width, class real>
STDANO_INLINE void load_table(const TableArguments<real>& a, int64_t m, real (&out)[most][width]) {
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const int64_t channel = channel_of(a, i > 0 && a.one_channel ? m : m + i);
#pragma unroll
    for (int r = 0; r < most; ++r) out[r][i] = r < a.rows ? a.table[r * a.g.channels + channel] : real(0);
  }
}

template <class scalar, class real, int width>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    channel_affine_kernel(const scalar* grad, const scalar* __restrict__ x, scalar* out,  // out may be grad
                          const __grid_constant__ TableArguments<real> a) {
  const int64_t m = this_thread() * width;
  if (m >= a.g.N) return;
  real table[3][width];  // centre, slope, offset
  load_table(a, m, table);
  int64_t at = offset(a, m);
#pragma unroll 2
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    const Pack<scalar, width> in = load<width>(x + at), g = load<width>(grad + at);
    Pack<scalar, width> sum;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const real added = fma_(table[1][i], convert(in.items[i], real()) - table[0][i], table[2][i]);
      sum.items[i] = convert(convert(g.items[i], real()) + added, scalar());
    }
    store(out + at, sum);
  }
}

template <class scalar, class real, int width, int most>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    decode_kernel(const uint8_t* __restrict__ codes, scalar* __restrict__ y,
                  const __grid_constant__ TableArguments<real> a) {
  const int64_t m = this_thread() * width;
  if (m >= a.g.N) return;
  real table[1 + most][width];
  load_table(a, m, table);
  int64_t at = offset(a, m);
#pragma unroll 4
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    const Pack<uint8_t, width> code = load<width>(codes + at);
    Pack<scalar, width> out;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      real value = table[0][i];
#pragma unroll
      for (int k = 0; k < most; ++k) value += (code.items[i] >> k & 1) != 0 ? table[1 + k][i] : real(0);
      out.items[i] = convert(value, scalar());
    }
    store(y + at, out);
  }
}

// Neighbours that a thread takes where memory allows.
template <class real>
constexpr int table_width = sizeof(real) == 4 ? 4 : 1;

// Calls start with the kernel for several neighbours or the one for a single one, the number of its threads, arguments.
template <class real, class Start, class Kernel, class... Pointers>
void start_widest(const Geometry& g, const void* table, int rows, Start start, Kernel wide, Kernel narrow,
                  Pointers... pointers) {
  constexpr int width = table_width<real>;
  TableArguments<real> a;
  fill_layout(a, g);
  a.table = static_cast<const real*>(table);
  a.rows = rows;
  a.one_channel = g.channel_stride % width == 0;
  const bool is_wide = g.inner % width == 0 && (is_aligned(width * sizeof(*pointers), pointers) && ...);
  start(is_wide ? wide : narrow, is_wide ? g.N / width : g.N, a);
}

template <class Stream, class Kernel, class... Pointers>
void start_sums(Kernel kernel, const SumArguments& a, Stream stream, Pointers... pointers) {
  STDANO_LAUNCH(kernel, count_blocks(a.columns.threads, kChannelThreads), kChannelThreads, stream, pointers..., a);
}

template <class scalar, class real, class Stream>
void channel_sums(const ChannelSumsCall& call, Stream stream) {
  start_sums(channel_sums_kernel<scalar, real>, sum_arguments(call.g, kChannelSums, call.sums), stream,
             static_cast<const scalar*>(call.x));
}

template <class Stream>
void count(const Geometry& g, int members, const uint8_t* codes, double* sums, Stream stream) {
  start_sums(count_kernel, sum_arguments(g, members, sums), stream, codes);
}

template <class scalar, class real, class Stream>
void super_sums(const SuperSumsCall& call, Stream stream) {
  const auto kernel = call.members <= 4 ? super_sums_kernel<scalar, real, 4> : super_sums_kernel<scalar, real, 8>;
  start_sums(kernel, sum_arguments(call.g, 1 + call.members, call.sums), stream, call.codes,
             static_cast<const scalar*>(call.grad));
}

template <class scalar, class real, class Stream>
void channel_affine(const ChannelAffineCall& call, Stream stream) {
  const scalar *grad = static_cast<const scalar*>(call.grad), *x = static_cast<const scalar*>(call.x);
  scalar* out = static_cast<scalar*>(call.out);
  const auto start = [&](auto kernel, int64_t threads, const TableArguments<real>& a) {
    STDANO_LAUNCH(kernel, count_blocks(threads, kChannelThreads), kChannelThreads, stream, grad, x, out, a);
  };
  start_widest<real>(call.g, call.table, 3, start, channel_affine_kernel<scalar, real, table_width<real>>,
                     channel_affine_kernel<scalar, real, 1>, grad, x, out);
}

template <class scalar, class real, class Stream>
void decode(const DecodeCall& call, Stream stream) {
  scalar* y = static_cast<scalar*>(call.y);
  constexpr int width = table_width<real>;
  const auto start = [&](auto kernel, int64_t threads, const TableArguments<real>& a) {
    STDANO_LAUNCH(kernel, count_blocks(threads, kChannelThreads), kChannelThreads, stream, call.codes, y, a);
  };
  if (call.members <= 4) {
    start_widest<real>(call.g, call.table, 1 + call.members, start, decode_kernel<scalar, real, width, 4>,
                       decode_kernel<scalar, real, 1, 4>, call.codes, y);
  } else {
    start_widest<real>(call.g, call.table, 1 + call.members, start, decode_kernel<scalar, real, 1, 8>,
                       decode_kernel<scalar, real, 1, 8>, call.codes, y);
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
