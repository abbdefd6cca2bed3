// CUDA kernels around channels: BatchNorm's sums, the map of each channel that completes its gradient, and the passes
// of a super neuron over its codes. A part of launch.cu, free of torch, so that a host compiler can build it too.
#pragma once

#include "float_sums.h"
#include "layout.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int kChannelThreads = 256;
constexpr int channel_blocks = 4;  // 64 registers for each thread, of which ptxas by itself may take 40 and spill

struct SumArguments : Layout {
  Dtype dtype;
  const void* x;
  const uint8_t* codes;
  int count;
  Slices slices;
  double* partial;  // [count][partials]
  int64_t partials;
  unsigned* ticket;  // set to 0, if given
};

STDANO_INLINE int64_t this_thread() { return static_cast<int64_t>(blockIdx.x) * kChannelThreads + threadIdx.x; }

// Calls f with the first offset of each neuron of a thread.
template <class F>
STDANO_INLINE void each_sequence(const SumArguments& a, F f) {
  each_neuron(a.slices, this_thread(), a.g.N, [&](int64_t m) { f(offset(a, m)); });
}

template <class T, int most>
STDANO_INLINE void store_sums(const SumArguments& a, const T (&sums)[most]) {
#pragma unroll
  for (int k = 0; k < most; ++k) {
    if (k >= a.count) continue;
    store_sum(a.partial + k * a.partials, this_thread(), a.slices.threads, a.slices.by_warp,
              static_cast<double>(sums[k]));
  }
}

template <class One>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    channel_sums_kernel(const __grid_constant__ SumArguments a) {
  using real = typename One::real;
  constexpr int ahead = 4;
  SumsOf<real> sums;
  each_sequence(a, [&](int64_t at) {
    int t = 0;
    for (; t + ahead <= a.steps; t += ahead) {
      typename One::Raw raw[ahead];
      real values[ahead];
#pragma unroll
      for (int k = 0; k < ahead; ++k, at += a.g.inner) raw[k] = One::load(a.x, at, a.dtype);
#pragma unroll
      for (int k = 0; k < ahead; ++k) values[k] = One::get(raw[k], a.dtype);
      sums.add(values);
    }
#pragma unroll
    for (int k = 1; k < ahead; ++k, ++t, at += a.g.inner) {
      if (t >= a.steps) return;
      const real value[] = {One::get(One::load(a.x, at, a.dtype), a.dtype)};
      sums.add(value);
    }
  });
  sums.finish();
  store_sums(a, sums.all);
}

// The spikes of each neuron in codes. Four are counted at once, in the bytes of a number, up to 255 each.
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    count_kernel(const __grid_constant__ SumArguments a) {
  int64_t counts[kMostMembers] = {};
  uint32_t low = 0, high = 0;
  int counted = 0;
  const auto flush = [&] {
#pragma unroll
    for (int k = 0; k < kMostMembers; ++k) counts[k] += (k < 4 ? low : high) >> (8 * (k % 4)) & 255;
    low = high = 0;
    counted = 0;
  };
  each_sequence(a, [&](int64_t at) {
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const uint32_t code = a.codes[at];
      low += (code & 15) * 0x00204081u & 0x01010101u;
      high += (code >> 4) * 0x00204081u & 0x01010101u;
      if (++counted == 255) flush();
    }
  });
  flush();
  store_sums(a, counts);
}

template <class One>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    super_sums_kernel(const __grid_constant__ SumArguments a) {
  using real = typename One::real;
  if (a.ticket && this_thread() == 0) *a.ticket = 0;
  double sums[1 + kMostMembers] = {};
  each_sequence(a, [&](int64_t at) {
    real of_neuron[1 + kMostMembers] = {};
#pragma unroll 4
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const int code = a.codes[at];
      const real gy = One::get(One::load(a.x, at, a.dtype), a.dtype);
      of_neuron[0] += gy;
#pragma unroll
      for (int k = 0; k < kMostMembers; ++k) of_neuron[1 + k] += (code >> k & 1) != 0 ? gy : real(0);
    }
#pragma unroll
    for (int k = 0; k <= kMostMembers; ++k) sums[k] += of_neuron[k];
  });
  store_sums(a, sums);
}

struct TableArguments : Layout {
  Dtype dtype;
  const void* table;
  int rows;
};

template <class Neighbours>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    channel_affine_kernel(const void* grad, const void* x, void* out, const __grid_constant__ TableArguments a) {
  constexpr int width = Neighbours::width;
  using real = typename Neighbours::real;
  const int64_t m = this_thread() * width;
  if (m >= a.g.N) return;
  ChannelMap<real> map[width];
#pragma unroll
  for (int i = 0; i < width; ++i) map[i].load(a, static_cast<const real*>(a.table), m + i);
  int64_t at = offset(a, m);
#pragma unroll 2
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    const auto in = Neighbours::load(x, at, a.dtype), g = Neighbours::load(grad, at, a.dtype);
    typename Neighbours::Raw sum;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const real added = map[i](Neighbours::get(in, a.dtype, i));
      Neighbours::set(sum, a.dtype, Neighbours::get(g, a.dtype, i) + added, i);
    }
    Neighbours::store(out, at, a.dtype, sum);
  }
}

template <class Neighbours>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    decode_kernel(const uint8_t* __restrict__ codes, void* y, const __grid_constant__ TableArguments a) {
  constexpr int width = Neighbours::width, most = width == 1 ? kMostMembers : 4;
  using real = typename Neighbours::real;
  const int64_t m = this_thread() * width;
  if (m >= a.g.N) return;
  real table[1 + most][width];
#pragma unroll
  for (int i = 0; i < width; ++i) {
    const real* rows = static_cast<const real*>(a.table) + channel_of(a, m + i);
#pragma unroll
    for (int k = 0; k <= most; ++k) table[k][i] = k < a.rows ? rows[k * a.g.channels] : real(0);
  }
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

// Calls f with how a kernel sees its numbers: one at a time, or four neighbours where memory allows that.
template <class F>
void choose_one(Dtype dtype, F f) {
  dtype == Dtype::float64 ? f(Few<double, double, 1>()) : f(Few<AnyFloat, float, 1>());
}
template <class F, class... Pointers>
void choose_width(Dtype dtype, bool may_be_wide, F f, Pointers... pointers) {
  const bool wide = may_be_wide && is_aligned(dtype == Dtype::float32 ? 16 : 8, pointers...);
  if (!wide || dtype == Dtype::float64) return choose_one(dtype, f);
  dtype == Dtype::float32 ? f(Few<float, float, 4>()) : f(Few<Half, float, 4>());
}

SumArguments sum_arguments(const Geometry& g, Dtype dtype, const void* x, const uint8_t* codes, int count,
                           double* partial) {
  const Slices slices = make_slices(g);
  return {make_layout(g), dtype, x, codes, count, slices, partial, slices.partials(), nullptr};
}

void launch(const ChannelSumsCall& call, cudaStream_t stream) {
  const SumArguments a = sum_arguments(call.g, call.dtype, call.x, nullptr, kChannelSums, call.sums);
  choose_one(call.dtype, [&](auto one) {
    start(channel_sums_kernel<decltype(one)>, a.slices.threads, kChannelThreads, stream, a);
  });
}

void count(const Geometry& g, int members, const uint8_t* codes, double* sums, cudaStream_t stream) {
  const SumArguments a = sum_arguments(g, Dtype::float32, nullptr, codes, members, sums);
  start(count_kernel, a.slices.threads, kChannelThreads, stream, a);
}

void launch(const SuperSumsCall& call, cudaStream_t stream) {
  SumArguments a = sum_arguments(call.g, call.dtype, call.grad, call.codes, 1 + call.members, call.sums);
  a.ticket = call.ticket;
  choose_one(call.dtype, [&](auto one) {
    start(super_sums_kernel<decltype(one)>, a.slices.threads, kChannelThreads, stream, a);
  });
}

void launch(const ChannelAffineCall& call, cudaStream_t stream) {
  const TableArguments a{make_layout(call.g), call.dtype, call.table, 3};
  const auto on = [&](auto few) {
    start(channel_affine_kernel<decltype(few)>, call.g.N / few.width, kChannelThreads, stream, call.grad, call.x,
          call.out, a);
  };
  choose_width(call.dtype, call.g.inner % 4 == 0, on, call.grad, call.x, call.out);
}

void launch(const DecodeCall& call, cudaStream_t stream) {
  const TableArguments a{make_layout(call.g), call.dtype, call.table, 1 + call.members};
  const auto on = [&](auto few) {
    start(decode_kernel<decltype(few)>, call.g.N / few.width, kChannelThreads, stream, call.codes, call.y, a);
  };
  choose_width(call.dtype, call.g.inner % 4 == 0 && call.members <= 4, on, call.codes, call.y);
}

}  // namespace STDANO_ISA
}  // namespace stdano
