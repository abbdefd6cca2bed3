// CUDA kernels that turn spikes into bits and back. A part of launch.cu, free of torch.
#pragma once

#include "layout.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int kBitsThreads = 256;

// What a thread handles: a byte of each plane.
template <class scalar>
struct alignas(16) Eight {
  scalar items[8];
};

STDANO_INLINE int64_t this_byte() { return static_cast<int64_t>(blockIdx.x) * kBitsThreads + threadIdx.x; }

STDANO_INLINE bool same_bits(float a, float b) { return bit_cast<uint32_t>(a) == bit_cast<uint32_t>(b); }
STDANO_INLINE bool same_bits(double a, double b) { return bit_cast<uint64_t>(a) == bit_cast<uint64_t>(b); }
template <class half>
STDANO_INLINE bool same_bits(half a, half b) {
  return a.bits == b.bits;
}

// A number's value. `spikes`: it is 0 or 1, for which nothing has to be divided.
template <bool spikes, class scalar, class real>
STDANO_INLINE scalar value_of(int number, const BitsCall& call) {
  if constexpr (spikes) return number != 0 ? convert(real(1), scalar()) : convert(real(0), scalar());
  return convert(real(number) / real(call.scale), scalar());
}

// The number of a value, if it has one.
template <bool spikes, class scalar, class real>
STDANO_INLINE int number_of(scalar value, const BitsCall& call) {
  if constexpr (spikes) return same_bits(value, convert(real(1), scalar()));
  return static_cast<int>(convert(value, real()) * real(call.scale) + real(0.5));
}

template <bool spikes, class scalar, class real>
__global__ void __launch_bounds__(kBitsThreads) pack_kernel(const __grid_constant__ BitsCall call, bool aligned) {
  const int64_t byte = this_byte(), first = 8 * byte;
  const scalar* values = static_cast<const scalar*>(call.values) + first;
  Eight<scalar> eight{};
  if (aligned && first + 8 <= call.count) {
    eight = *reinterpret_cast<const Eight<scalar>*>(values);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (first + i < call.count) eight.items[i] = values[i];
    }
  }
  int numbers[8];
  bool wrong = false;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    numbers[i] = number_of<spikes, scalar, real>(eight.items[i], call);
    const scalar value = value_of<spikes, scalar, real>(numbers[i], call);
    wrong |= (numbers[i] >> call.planes) != 0 || !same_bits(value, eight.items[i]);
  }
  for (int p = 0; p < call.planes && first < call.count; ++p) {
    int bits = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) bits |= (numbers[i] >> p & 1) << i;
    call.bits[p * call.plane + byte] = static_cast<uint8_t>(bits);
  }
  // A warp is a group.
  wrong = __any_sync(0xFFFFFFFFu, wrong);
  if (threadIdx.x % kGroupBytes == 0 && first < call.count) call.wrong[byte / kGroupBytes] = wrong;
}

template <bool spikes, class scalar, class real>
__global__ void __launch_bounds__(kBitsThreads) unpack_kernel(const __grid_constant__ BitsCall call) {
  const int64_t byte = this_byte();
  if (8 * byte >= call.count) return;
  int numbers[8] = {};
  for (int p = 0; p < call.planes; ++p) {
    const int bits = call.bits[p * call.plane + byte];
#pragma unroll
    for (int i = 0; i < 8; ++i) numbers[i] |= (bits >> i & 1) << p;
  }
  const bool wrong = call.wrong && call.wrong[byte / kGroupBytes] != 0;
  Eight<scalar> eight;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    eight.items[i] = wrong ? convert(real(NAN), scalar()) : value_of<spikes, scalar, real>(numbers[i], call);
  }
  reinterpret_cast<Eight<scalar>*>(call.values)[byte] = eight;
}

// Calls f with whether values are 0 and 1, a number in memory, and one of its arithmetic.
template <class F>
void choose(const BitsCall& call, F f) {
  const auto for_dtype = [&](auto spikes) {
    switch (call.dtype) {
      case Dtype::float32: return f(spikes, float(), float());
      case Dtype::float64: return f(spikes, double(), double());
      case Dtype::bfloat16: return f(spikes, bfloat16(), float());
      case Dtype::float16: return f(spikes, float16(), float());
    }
  };
  call.planes == 1 && call.scale == 1 ? for_dtype(std::true_type()) : for_dtype(std::false_type());
}

void launch_pack(const BitsCall& call, cudaStream_t stream) {
  choose(call, [&](auto spikes, auto scalar, auto real) {
    start(pack_kernel<spikes.value, decltype(scalar), decltype(real)>, (call.count + 7) / 8, kBitsThreads, stream, call,
          is_aligned(16, call.values));
  });
}

void launch_unpack(const BitsCall& call, cudaStream_t stream) {
  choose(call, [&](auto spikes, auto scalar, auto real) {
    start(unpack_kernel<spikes.value, decltype(scalar), decltype(real)>, call.count / 8, kBitsThreads, stream, call);
  });
}

}  // namespace STDANO_ISA
}  // namespace stdano
