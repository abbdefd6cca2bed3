// How the CUDA kernels find their way in memory, and how work is divided among threads. Free of torch, like the kernels,
// so that a host compiler can build them too.
#pragma once

#include "../call.h"
#include "../half.h"

namespace stdano {
namespace STDANO_ISA {

// Division by a number that all threads share, for numerators below 2^40 (2^31 in 32 bits): a multiplication and shifts
// instead of the hundred instructions of a 64-bit division. With k = 40 + shift and multiplier = ceil(2^k / d), whose
// error is below d <= 2^shift, numerator*multiplier / 2^k exceeds the quotient by less than 1/d.
struct Divisor {
  uint64_t value, multiplier;
  uint32_t multiplier32;
  int shift;
};

inline Divisor make_divisor(int64_t d) {
  Divisor out{static_cast<uint64_t>(d), 0, 0, 0};
  while ((uint64_t(1) << out.shift) < out.value) ++out.shift;
  const auto multiplier = [&](int bits) {
    const unsigned __int128 power = static_cast<unsigned __int128>(1) << (bits + out.shift);
    return static_cast<uint64_t>((power + out.value - 1) / out.value);
  };
  out.multiplier = multiplier(40);
  out.multiplier32 = static_cast<uint32_t>(multiplier(31));
  return out;
}

STDANO_INLINE int64_t divide(int64_t numerator, const Divisor& d) {
  const uint64_t n = static_cast<uint64_t>(numerator) << 24;
#if defined(__CUDA_ARCH__)
  return static_cast<int64_t>(__umul64hi(n, d.multiplier) >> d.shift);
#else
  return static_cast<int64_t>(static_cast<uint64_t>(static_cast<unsigned __int128>(n) * d.multiplier >> 64) >> d.shift);
#endif
}
STDANO_INLINE uint32_t divide(uint32_t numerator, const Divisor& d) {
  return static_cast<uint32_t>(static_cast<uint64_t>(numerator << 1) * d.multiplier32 >> 32) >> d.shift;
}

template <class Index>
STDANO_INLINE Index remainder(Index numerator, const Divisor& d) {
  return numerator - divide(numerator, d) * static_cast<Index>(d.value);
}

// Makes the compiler compute something where it stands, not ahead of a branch that leaves it out.
STDANO_INLINE void stay_here() {
#if defined(__CUDA_ARCH__)
  asm volatile("");
#endif
}

// Makes the compiler forget where a number came from, so that it does not keep what it can compute anew from it.
template <class Index>
STDANO_INLINE void forget_origin(Index& value) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(Index) == 4) {
    asm volatile("" : "+r"(value));
  } else {
    asm volatile("" : "+l"(value));
  }
#endif
}

// Where neurons lie, and which channel they belong to. Kernels count in 64 bits, or in 32 where all elements can be
// counted so.
struct Layout {
  Geometry g;
  Divisor inner, channel_stride, channels;
  int steps;
};

inline void fill_layout(Layout& a, const Geometry& g) {
  a.g = g;
  a.inner = make_divisor(g.inner);
  a.channel_stride = make_divisor(g.channel_stride);
  a.channels = make_divisor(g.channels);
  a.steps = static_cast<int>(g.T);
}

// Where neuron m lies at the first step: (outer*T)*inner + m % inner. The division is left out where there is none.
template <class Index>
STDANO_INLINE Index offset(const Layout& a, Index m) {
  if (a.g.inner == a.g.N) return m;
  stay_here();
  return m + divide(m, a.inner) * static_cast<Index>(a.g.T - 1) * static_cast<Index>(a.g.inner);
}

template <class Index>
STDANO_INLINE Index channel_of(const Layout& a, Index m) {
  return remainder(divide(m, a.channel_stride), a.channels);
}

// How sums for each channel are divided among threads: neuron (row*slabs + slab)*columns + column goes to thread
// slab*columns + column, which stays within a channel.
struct Slices {
  int64_t columns, slabs;
  int64_t threads() const { return slabs * columns; }
};

// Threads that a device is kept busy with where sums are taken: more work than these go through is done in sequence.
constexpr int64_t kSumThreads = 131072;
constexpr int64_t kSumColumns = 65536;

inline Slices make_slices(const Geometry& g) {
  const int64_t columns = g.channels > 1 ? g.channels * g.channel_stride : (g.N < kSumColumns ? g.N : kSumColumns);
  const int64_t rows = (g.N + columns - 1) / columns;
  const int64_t wanted = kSumThreads / columns < 1 ? 1 : kSumThreads / columns;
  return {columns, wanted < rows ? wanted : rows};
}

// Neighbouring values that one instruction loads or stores.
template <class scalar, int width>
struct alignas(sizeof(scalar) * width < 16 ? sizeof(scalar) * width : 16) Pack {
  scalar items[width];
};

template <int width, class scalar>
STDANO_INLINE Pack<scalar, width> load(const scalar* from) {
  return *reinterpret_cast<const Pack<scalar, width>*>(from);
}
template <int width, class scalar>
STDANO_INLINE void store(scalar* to, const Pack<scalar, width>& values) {
  *reinterpret_cast<Pack<scalar, width>*>(to) = values;
}

// `width` neighbours of x and what is like it, in a dtype that is known here or, for one of AnyFloat, to the call alone.
// What is loaded is apart from what it means, so that nobody waits for it too early.
template <class scalar, class real, int width>
struct Few {
  using Raw = Pack<scalar, width>;

  template <class Index>
  static STDANO_INLINE Raw load(const void* base, Index at, Dtype) {
    return STDANO_ISA::load<width>(static_cast<const scalar*>(base) + at);
  }
  template <class Index>
  static STDANO_INLINE void store(void* base, Index at, Dtype, const Raw& raw) {
    STDANO_ISA::store(static_cast<scalar*>(base) + at, raw);
  }
  static STDANO_INLINE real get(const Raw& raw, Dtype, int i = 0) { return convert(raw.items[i], real()); }
  static STDANO_INLINE void set(Raw& raw, Dtype, real value, int i = 0) { raw.items[i] = convert(value, scalar()); }
};

struct AnyFloat {};

template <>
struct Few<AnyFloat, float, 1> {
  using Raw = uint32_t;

  template <class Index>
  static STDANO_INLINE Raw load(const void* base, Index at, Dtype dtype) {
    return dtype == Dtype::float32 ? static_cast<const uint32_t*>(base)[at] : static_cast<const uint16_t*>(base)[at];
  }
  template <class Index>
  static STDANO_INLINE void store(void* base, Index at, Dtype dtype, Raw raw) {
    if (dtype == Dtype::float32) {
      static_cast<uint32_t*>(base)[at] = raw;
    } else {
      static_cast<uint16_t*>(base)[at] = static_cast<uint16_t>(raw);
    }
  }
  static STDANO_INLINE float get(Raw raw, Dtype dtype, int = 0) {
    if (dtype == Dtype::float32) return bit_cast<float>(raw);
    const uint16_t half = static_cast<uint16_t>(raw);
    return dtype == Dtype::bfloat16 ? convert(bfloat16{half}, float()) : convert(float16{half}, float());
  }
  static STDANO_INLINE void set(Raw& raw, Dtype dtype, float value, int = 0) {
    raw = dtype == Dtype::float32    ? bit_cast<uint32_t>(value)
          : dtype == Dtype::bfloat16 ? convert(value, bfloat16()).bits
                                     : convert(value, float16()).bits;
  }
};

template <class... Pointers>
bool is_aligned(int bytes, Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

inline unsigned count_blocks(int64_t threads, int64_t block) {
  return static_cast<unsigned>((threads + block - 1) / block);
}

template <class scalar_, class real_>
struct Numbers {
  using scalar = scalar_;
  using real = real_;
};

template <class F>
void choose_numbers(Dtype dtype, F f) {
  switch (dtype) {
    case Dtype::float32: return f(Numbers<float, float>());
    case Dtype::float64: return f(Numbers<double, double>());
    case Dtype::bfloat16: return f(Numbers<bfloat16, float>());
    case Dtype::float16: return f(Numbers<float16, float>());
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano

// A host build defines this as a loop over the grid.
#ifndef STDANO_LAUNCH
#define STDANO_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif
