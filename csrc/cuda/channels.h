// CUDA kernels around channels: BatchNorm's sums, the map of each channel that completes its gradient, and the passes of
// a super neuron over its codes. Free of torch, so that a host compiler can build them too.
#pragma once

#include <type_traits>

#include "layout.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int kChannelThreads = 256;
constexpr int channel_blocks = 4;  // 64 registers for each thread, of which ptxas by itself may take 40 and spill

struct SumArguments : Layout {
  int64_t threads;
  int count;
  double* partial;  // [count][slabs][columns]
};

inline SumArguments sum_arguments(const Geometry& g, int count, double* partial) {
  SumArguments a;
  fill_layout(a, g);
  a.threads = make_slices(g).threads();
  a.count = count;
  a.partial = partial;
  return a;
}

STDANO_INLINE int64_t this_thread() { return static_cast<int64_t>(blockIdx.x) * kChannelThreads + threadIdx.x; }

// Calls f with the first offset of each neuron of a thread.
template <class F>
STDANO_INLINE void walk(const SumArguments& a, F f) {
  for (int64_t m = this_thread(); m < a.g.N; m += a.threads) f(offset(a, m));
}

template <class T, int most>
STDANO_INLINE void store_sums(const SumArguments& a, const T (&sums)[most]) {
#pragma unroll
  for (int k = 0; k < most; ++k) {
    if (k < a.count) a.partial[k * a.threads + this_thread()] = static_cast<double>(sums[k]);
  }
}

// The square of a float is exact in double, so no fma is needed here.
template <class scalar, class real>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    channel_sums_kernel(const scalar* __restrict__ x, const __grid_constant__ SumArguments a) {
  if (this_thread() >= a.threads) return;
  double sums[kChannelSums] = {};
  walk(a, [&](int64_t at) {
#pragma unroll 4
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const double value = convert(x[at], real());
      sums[0] += value;
      sums[1] += value * value;
    }
  });
  store_sums(a, sums);
}

// The spikes of each neuron in codes. Four are counted at once, in the bytes of a number, up to 255 each.
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    count_kernel(const uint8_t* __restrict__ codes, const __grid_constant__ SumArguments a) {
  if (this_thread() >= a.threads) return;
  int64_t counts[kMostMembers] = {};
  uint32_t low = 0, high = 0;
  int counted = 0;
  const auto flush = [&] {
#pragma unroll
    for (int k = 0; k < kMostMembers; ++k) counts[k] += (k < 4 ? low : high) >> (8 * (k % 4)) & 255;
    low = high = 0;
    counted = 0;
  };
  walk(a, [&](int64_t at) {
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const uint32_t code = codes[at];
      low += (code & 15) * 0x00204081u & 0x01010101u;
      high += (code >> 4) * 0x00204081u & 0x01010101u;
      if (++counted == 255) flush();
    }
  });
  flush();
  store_sums(a, counts);
}

template <class scalar, class real, int most>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    super_sums_kernel(const uint8_t* __restrict__ codes, const scalar* __restrict__ grad,
                      const __grid_constant__ SumArguments a) {
  if (this_thread() >= a.threads) return;
  double sums[1 + most] = {};
  walk(a, [&](int64_t at) {
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
  store_sums(a, sums);
}

// What is read for each channel, for `width` neighbouring neurons at a time, or AnyFloat for one.
template <class real>
struct TableArguments : Layout {
  Dtype dtype;
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
    channel_affine_kernel(const void* grad, const void* x, void* out, const __grid_constant__ TableArguments<real> a) {
  using Neighbours = Few<scalar, real, width>;
  const int64_t m = this_thread() * width;
  if (m >= a.g.N) return;
  real table[3][width];  // centre, slope, offset
  load_table(a, m, table);
  int64_t at = offset(a, m);
#pragma unroll 2
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    const auto in = Neighbours::load(x, at, a.dtype), g = Neighbours::load(grad, at, a.dtype);
    typename Neighbours::Raw sum;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const real added = fma_(table[1][i], Neighbours::get(in, a.dtype, i) - table[0][i], table[2][i]);
      Neighbours::set(sum, a.dtype, Neighbours::get(g, a.dtype, i) + added, i);
    }
    Neighbours::store(out, at, a.dtype, sum);
  }
}

template <class scalar, class real, int width, int most>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    decode_kernel(const uint8_t* __restrict__ codes, void* y, const __grid_constant__ TableArguments<real> a) {
  using Neighbours = Few<scalar, real, width>;
  const int64_t m = this_thread() * width;
  if (m >= a.g.N) return;
  real table[1 + most][width];
  load_table(a, m, table);
  int64_t at = offset(a, m);
#pragma unroll 4
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    const Pack<uint8_t, width> code = load<width>(codes + at);
    typename Neighbours::Raw out;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      real value = table[0][i];
#pragma unroll
      for (int k = 0; k < most; ++k) value += (code.items[i] >> k & 1) != 0 ? table[1 + k][i] : real(0);
      Neighbours::set(out, a.dtype, value, i);
    }
    Neighbours::store(y, at, a.dtype, out);
  }
}

// Calls f with what the kernels that a thread takes four neighbours with are compiled for, or with AnyFloat or double for
// one neighbour where memory does not allow that.
template <class F, class... Pointers>
void choose_width(Dtype dtype, const Geometry& g, bool may_be_wide, F f, Pointers... pointers) {
  if (dtype == Dtype::float64) return f(Numbers<double, double>(), std::integral_constant<int, 1>());
  const int bytes = dtype == Dtype::float32 ? 16 : 8;
  if (!may_be_wide || g.inner % 4 != 0 || !is_aligned(bytes, pointers...)) {
    return f(Numbers<AnyFloat, float>(), std::integral_constant<int, 1>());
  }
  const auto wide = [&](auto scalar) { f(Numbers<decltype(scalar), float>(), std::integral_constant<int, 4>()); };
  if (dtype == Dtype::float32) return wide(float());
  dtype == Dtype::bfloat16 ? wide(bfloat16()) : wide(float16());
}

template <class real>
TableArguments<real> table_arguments(const Geometry& g, Dtype dtype, const void* table, int rows) {
  TableArguments<real> a;
  fill_layout(a, g);
  a.dtype = dtype;
  a.table = static_cast<const real*>(table);
  a.rows = rows;
  a.one_channel = g.channel_stride % 4 == 0;
  return a;
}

template <class Stream, class Kernel, class... Pointers>
void start_sums(Kernel kernel, const SumArguments& a, Stream stream, Pointers... pointers) {
  STDANO_LAUNCH(kernel, count_blocks(a.threads, kChannelThreads), kChannelThreads, stream, pointers..., a);
}

template <class Stream>
void channel_sums(const ChannelSumsCall& call, Stream stream) {
  choose_numbers(call.dtype, [&](auto n) {
    using scalar = typename decltype(n)::scalar;
    start_sums(channel_sums_kernel<scalar, typename decltype(n)::real>,
               sum_arguments(call.g, kChannelSums, call.sums), stream, static_cast<const scalar*>(call.x));
  });
}

template <class Stream>
void count(const Geometry& g, int members, const uint8_t* codes, double* sums, Stream stream) {
  start_sums(count_kernel, sum_arguments(g, members, sums), stream, codes);
}

template <class Stream>
void super_sums(const SuperSumsCall& call, Stream stream) {
  choose_numbers(call.dtype, [&](auto n) {
    using scalar = typename decltype(n)::scalar;
    using real = typename decltype(n)::real;
    const auto kernel = call.members <= 4 ? super_sums_kernel<scalar, real, 4> : super_sums_kernel<scalar, real, 8>;
    start_sums(kernel, sum_arguments(call.g, 1 + call.members, call.sums), stream, call.codes,
               static_cast<const scalar*>(call.grad));
  });
}

template <class Stream>
void channel_affine(const ChannelAffineCall& call, Stream stream) {
  const auto start = [&](auto n, auto width) {
    using real = typename decltype(n)::real;
    const auto a = table_arguments<real>(call.g, call.dtype, call.table, 3);
    STDANO_LAUNCH((channel_affine_kernel<typename decltype(n)::scalar, real, decltype(width)::value>),
                  count_blocks(call.g.N / decltype(width)::value, kChannelThreads), kChannelThreads, stream, call.grad,
                  call.x, call.out, a);
  };
  choose_width(call.dtype, call.g, true, start, call.grad, call.x, call.out);
}

template <class Stream>
void decode(const DecodeCall& call, Stream stream) {
  const auto start = [&](auto n, auto width) {
    using real = typename decltype(n)::real;
    constexpr int most = decltype(width)::value == 1 ? kMostMembers : 4;
    const auto a = table_arguments<real>(call.g, call.dtype, call.table, 1 + call.members);
    STDANO_LAUNCH((decode_kernel<typename decltype(n)::scalar, real, decltype(width)::value, most>),
                  count_blocks(call.g.N / decltype(width)::value, kChannelThreads), kChannelThreads, stream,
                  call.codes, call.y, a);
  };
  choose_width(call.dtype, call.g, call.members <= 4, start, call.codes, call.y);
}

}  // namespace STDANO_ISA
}  // namespace stdano
