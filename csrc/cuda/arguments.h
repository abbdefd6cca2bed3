// What the CUDA kernels are given, in their own precision, and how they find their way in memory.
#pragma once

#include "../call.h"
#include "../half.h"
#include "../neurons.h"
#include "../surrogates.h"

namespace stdano {
namespace STDANO_ISA {

constexpr int kForwardThreads = 256;
constexpr int kBackwardThreads = 128;

// Division by a number that all threads share, for numerators below 2^40: a multiplication and two shifts instead of
// the hundred instructions of a 64-bit division. With k = 40 + shift and multiplier = ceil(2^k / d), whose error is
// below d <= 2^shift, numerator*multiplier / 2^k exceeds the quotient by less than 1/d.
struct Divisor {
  uint64_t value, multiplier;
  int shift;
};

inline Divisor make_divisor(int64_t d) {
  Divisor out{static_cast<uint64_t>(d), 0, 0};
  while ((uint64_t(1) << out.shift) < out.value) ++out.shift;
  const unsigned __int128 power = static_cast<unsigned __int128>(1) << (40 + out.shift);
  out.multiplier = static_cast<uint64_t>((power + out.value - 1) / out.value);
  return out;
}

STDANO_INLINE int64_t divide(int64_t numerator, Divisor d) {
  const uint64_t n = static_cast<uint64_t>(numerator) << 24;
#if defined(__CUDA_ARCH__)
  return static_cast<int64_t>(__umul64hi(n, d.multiplier) >> d.shift);
#else
  return static_cast<int64_t>(static_cast<uint64_t>(static_cast<unsigned __int128>(n) * d.multiplier >> 64) >> d.shift);
#endif
}
STDANO_INLINE int64_t remainder(int64_t numerator, Divisor d) {
  return numerator - divide(numerator, d) * static_cast<int64_t>(d.value);
}

// What a kernel is compiled for: constants shared by all neurons (computed on the host), or read from tensors; and
// soft spikes, which serve checks, or an affine map in front of the neurons, with either.
enum class Kind { shared, tensors, soft, affine };

// Blocks that share a multiprocessor's 65536 registers: 64 for each thread, or 72 for a map's adjoint and its sums, or
// 128 for what serves checks.
template <class real>
constexpr int forward_blocks = sizeof(real) == 4 ? 4 : 2;
template <class real, Kind kind>
constexpr int backward_blocks = sizeof(real) == 8 || kind == Kind::soft ? 4 : kind == Kind::affine ? 7 : 8;

template <class real>
constexpr int checkpoint_steps = sizeof(real) == 4 ? kDeviceCheckpointSteps : kDeviceCheckpointStepsDouble;

// Where neurons lie, and which channel they belong to.
struct Layout {
  Geometry g;
  Divisor inner, channel_stride, channels;
};

template <class real>
struct Arguments : Layout {
  int steps;
  int surrogate;
  real alpha;
  Settings<real> settings;
  Constants<real> constants;
  const real *v0, *adapt0, *tau, *threshold;
};

template <class real>
struct ForwardArguments : Arguments<real> {
  real *v, *adapt, *checkpoints;
  const real* affine;
  bool one_channel;  // for the neighbours that a thread takes
};

// How sums for each channel are divided among threads: neuron (slab*rows + i)*columns + column goes to thread
// slab*columns + column, which stays within a channel.
struct Slices {
  int64_t columns, slabs;
  int rows;
};

template <class real>
struct BackwardArguments : Arguments<real> {
  const real *checkpoints, *grad_v, *grad_adapt;
  real *grad_v0, *grad_adapt0;
  Slices slices;
  Divisor columns;
  double* partial;  // [constant_sums][slabs][columns], of which those that are not wanted are not written
  const real* affine;
};

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

// Makes the compiler forget where a number came from, so that it does not keep what it could compute anew.
STDANO_INLINE void forget_origin(int64_t& value) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(value));
#endif
}
STDANO_INLINE void forget_origin(float& value) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+f"(value));
#endif
}
STDANO_INLINE void forget_origin(double& value) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+d"(value));
#endif
}

// Where neuron m lies at the first step: (outer*T)*inner + m % inner. The division is left out where there is none.
STDANO_INLINE int64_t offset(const Layout& a, int64_t m) {
  return m < a.g.inner ? m : m + divide(m, a.inner) * (a.g.T - 1) * a.g.inner;
}

STDANO_INLINE int64_t channel_of(const Layout& a, int64_t m) {
  return remainder(divide(m, a.channel_stride), a.channels);
}

template <Kind kind, class real>
STDANO_INLINE Constants<real> constants_of(const Arguments<real>& a, int64_t m) {
  if (kind == Kind::shared || (!a.tau && !a.threshold)) return a.constants;
  const int64_t channel = channel_of(a, m);
  const real tau = a.tau ? a.tau[channel] : a.constants.tau;
  return make_constants(a.settings, limited_tau(tau), a.threshold ? a.threshold[channel] : a.constants.threshold);
}

// The affine map of a channel: its neurons' input is scale*(x - centre) + shift.
template <class real>
struct ChannelMap {
  real centre, scale, shift;
};

template <Kind kind>
STDANO_INLINE bool has_map(const void* affine) {
  return kind == Kind::affine || (kind == Kind::soft && affine);
}

template <Kind kind, class real>
STDANO_INLINE ChannelMap<real> map_of(const Layout& a, const real* affine, int64_t m) {
  if (!has_map<kind>(affine)) return {0, 1, 0};
  const real* entry = affine + channel_of(a, m);
  return {entry[0], entry[a.g.channels], entry[2 * a.g.channels]};
}

// From x to what is kept of it, x - centre, and from there to the neuron's input. Without a map both are x.
template <Kind kind, class real>
STDANO_INLINE real centred(const real* affine, const ChannelMap<real>& map, real x) {
  return has_map<kind>(affine) ? x - map.centre : x;
}
template <Kind kind, class real>
STDANO_INLINE real input(const real* affine, const ChannelMap<real>& map, real kept) {
  return has_map<kind>(affine) ? fma_(map.scale, kept, map.shift) : kept;
}

// A surrogate chosen at run time: a kernel for each would be six times as many.
constexpr Surrogate any_surrogate = surrogate_count;

template <Surrogate kind, class real>
STDANO_INLINE real derivative(int chosen, real u, real alpha) {
  if (kind != any_surrogate) return surrogate_derivative<kind>(u, alpha);
  return with_surrogate(chosen, [&](auto s) { return surrogate_derivative<decltype(s)::value>(u, alpha); });
}

template <class real>
STDANO_INLINE real primitive(int chosen, real u, real alpha) {
  return with_surrogate(chosen, [&](auto s) { return surrogate_primitive<decltype(s)::value>(u, alpha); });
}

// Hands the spike to f: a bool, or where spikes are soft a number.
template <Kind kind, class real, class F>
STDANO_INLINE void spike(const Arguments<real>& a, real u, F f) {
  if (kind == Kind::soft) {
    f(primitive(a.surrogate, u, a.alpha));
  } else {
    f(fires(u));
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
