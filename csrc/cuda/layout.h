// How the CUDA kernels find their way in memory, and how work is divided among threads. Free of torch, like the
// kernels, so that a host compiler can build them too.
#pragma once

#include <type_traits>

#include "../half.h"
#include "device.h"

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

inline Layout make_layout(const Geometry& g) {
  return {g, make_divisor(g.inner), make_divisor(g.channel_stride), make_divisor(g.channels), static_cast<int>(g.T)};
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

// The affine map of a neuron's channel, of which `table` [3][channels] has centre, scale and shift.
template <class real>
struct ChannelMap {
  real centre, scale, shift;

  template <class Index>
  STDANO_INLINE void load(const Layout& a, const real* table, Index m) {
    table += channel_of(a, m);
    centre = table[0], scale = table[a.g.channels], shift = table[2 * a.g.channels];
  }
  STDANO_INLINE real operator()(real x) const { return fma_(scale, x - centre, shift); }
};

constexpr int kWarp = 32;

// How sums for each channel are divided among threads: thread (slab*channels + channel)*width + i takes the neurons i,
// i + width, .. of its channel in the rows slab, slab + slabs, ..; a row are `stride` neurons of each channel.
struct Slices {
  int64_t stride, width, slabs, threads;
  int64_t jump;  // from a row to the next
  Divisor by_stride, by_width;
  int spread;   // a channel has more or fewer neurons than threads
  int by_warp;  // a warp stays within a channel and stores one sum, not one of each thread

  int64_t warps() const { return (threads + kWarp - 1) / kWarp; }
  int64_t partials() const { return by_warp ? warps() : threads; }
};

// Threads that a device is kept busy with where sums are taken: more work than these go through is done in sequence.
constexpr int64_t kSumThreads = 131072;
// With so many for a channel a few idle ones cost less than partial sums of all.
constexpr int64_t kWholeWarps = 512;

inline Slices make_slices(const Geometry& g) {
  const int64_t stride = g.channels > 1 ? g.channel_stride : g.N, row = g.channels * stride;
  const int64_t most = g.channels < kSumThreads ? kSumThreads / g.channels : 1, rounds = (stride + most - 1) / most;
  int64_t width = (stride + rounds - 1) / rounds;
  if (width >= kWholeWarps) width = (width + kWarp - 1) / kWarp * kWarp;
  const int64_t wanted = kSumThreads / (g.channels * width), rows = g.N / row;
  const int64_t slabs = wanted < 1 ? 1 : wanted < rows ? wanted : rows;
  return {stride,
          width,
          slabs,
          slabs * g.channels * width,
          slabs * row,
          make_divisor(stride),
          make_divisor(width),
          width != stride,
          width % kWarp == 0 || g.channels == 1};
}

// A thread for each neuron.
inline Slices no_slices(const Geometry& g) { return {g.N, g.N, 1, g.N, g.N}; }

// Calls f with the neurons of a thread. The next one is found by the last alone, so that no register keeps anything else.
template <class Index, class F>
STDANO_INLINE void each_neuron(const Slices& s, Index thread, Index N, F f) {
  if (thread >= static_cast<Index>(s.threads)) return;
  const Index width = static_cast<Index>(s.width), stride = static_cast<Index>(s.stride);
  Index m = thread;
  if (s.spread) {
    stay_here();
    const Index number = divide(thread, s.by_width), begin = thread - number * width;
    m = begin < stride ? number * stride + begin : N;
  }
  while (m < N) {
    f(m);
    if (s.spread) {
      stay_here();
      const Index place = remainder(m, s.by_stride);
      m = place + width < stride ? m + width - static_cast<Index>(s.jump) : m - place + remainder(place, s.by_width);
    }
    m += static_cast<Index>(s.jump);
  }
}

// The sum of a warp, for its first thread.
STDANO_INLINE double warp_sum(double value) {
#if defined(__CUDA_ARCH__)
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) value += __shfl_down_sync(0xFFFFFFFFu, value, lanes);
#endif
  return value;
}

// Stores a thread's part of a sum, or that of its warp, of which all threads call this.
STDANO_INLINE void store_sum(double* partial, int64_t thread, int64_t threads, bool by_warp, double value) {
  if (by_warp) value = warp_sum(value);
  if (thread >= threads) return;
  double* to = partial + (by_warp ? thread / kWarp : thread);
  const bool first = !by_warp || thread % kWarp == 0;
#if !defined(__CUDA_ARCH__)  // threads that run one after the other
  if (!first) *to += value;
#endif
  if (first) *to = value;
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

// A number in bfloat16 or float16, or also in float32: which, the call knows, so that dtypes share their kernels.
struct Half {
  uint16_t bits;
};
struct AnyFloat {
  uint32_t bits;
};

template <class real>
STDANO_INLINE real to_real(real a, Dtype) {
  return a;
}
STDANO_INLINE float to_real(Half a, Dtype dtype) {
  return dtype == Dtype::bfloat16 ? convert(bfloat16{a.bits}, float()) : convert(float16{a.bits}, float());
}
STDANO_INLINE float to_real(AnyFloat a, Dtype dtype) {
  return dtype == Dtype::float32 ? bit_cast<float>(a.bits) : to_real(Half{static_cast<uint16_t>(a.bits)}, dtype);
}

template <class real>
STDANO_INLINE void from_real(real& out, real value, Dtype) {
  out = value;
}
STDANO_INLINE void from_real(Half& out, float value, Dtype dtype) {
  out.bits = dtype == Dtype::bfloat16 ? convert(value, bfloat16()).bits : convert(value, float16()).bits;
}
STDANO_INLINE void from_real(AnyFloat& out, float value, Dtype dtype) {
  Half half;
  from_real(half, value, dtype);
  out.bits = dtype == Dtype::float32 ? bit_cast<uint32_t>(value) : half.bits;
}

// `width` neighbours of x and what is like it. What is loaded is apart from what it means, so that nobody waits for it
// too early.
template <class scalar, class real_, int width_>
struct Few {
  using real = real_;
  static constexpr int width = width_;
  using Raw = Pack<scalar, width>;

  template <class Index>
  static STDANO_INLINE Raw load(const void* base, Index at, Dtype dtype) {
    if constexpr (!std::is_same<scalar, AnyFloat>::value) {
      return STDANO_ISA::load<width>(static_cast<const scalar*>(base) + at);
    } else if (dtype == Dtype::float32) {
      return {{static_cast<const uint32_t*>(base)[at]}};
    } else {
      return {{static_cast<const uint16_t*>(base)[at]}};
    }
  }
  template <class Index>
  static STDANO_INLINE void store(void* base, Index at, Dtype dtype, const Raw& raw) {
    if constexpr (!std::is_same<scalar, AnyFloat>::value) {
      STDANO_ISA::store(static_cast<scalar*>(base) + at, raw);
    } else if (dtype == Dtype::float32) {
      static_cast<uint32_t*>(base)[at] = raw.items[0].bits;
    } else {
      static_cast<uint16_t*>(base)[at] = static_cast<uint16_t>(raw.items[0].bits);
    }
  }
  static STDANO_INLINE real get(const Raw& raw, Dtype dtype, int i = 0) { return to_real(raw.items[i], dtype); }
  static STDANO_INLINE void set(Raw& raw, Dtype dtype, real value, int i = 0) { from_real(raw.items[i], value, dtype); }
};

template <class... Pointers>
bool is_aligned(int bytes, Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % bytes == 0) && ...);
}

template <class... Arguments>
void start(void (*kernel)(Arguments...), int64_t threads, int block, cudaStream_t stream, const Arguments&... of) {
  const unsigned blocks = static_cast<unsigned>((threads + block - 1) / block);
#if defined(STDANO_LAUNCH)  // a host build's loop over the grid
  STDANO_LAUNCH(kernel, blocks, static_cast<unsigned>(block), of...);
#else
  kernel<<<blocks, block, 0, stream>>>(of...);
#endif
}

}  // namespace STDANO_ISA
}  // namespace stdano
