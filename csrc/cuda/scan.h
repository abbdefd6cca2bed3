// The kernels of a neuron: one thread walks one neuron, or a few neighbouring ones, through all time steps, by the
// functions that stdano_kernels/define/cuda.py has printed: S (a step), A (its adjoint) and C (what constants make). Fast
// kernels have void for C: their constants are numbers, from which the host has made `derived`.
//
// Forward holds nothing but the state, so a thread takes as many neurons as one access of 16 bytes holds. Backward
// recomputes a chunk of steps in registers, last chunk first, and takes one neuron a thread. How many steps a chunk has
// is known where a fast kernel is compiled: a test for each would cut the chunk into pieces, between which little is
// shared or overlaps.
#pragma once

#include "arguments.h"

namespace stdano {
namespace STDANO_ISA {

template <bool general>
using IndexOf = std::conditional_t<general, int64_t, uint32_t>;

// Where state j of a neuron lies in a checkpoint.
template <class S, class Index>
STDANO_INLINE Index checkpoint(const Layout& a, int number, int j, Index m) {
  return static_cast<Index>(number * S::states + j) * static_cast<Index>(a.g.N) + m;
}

// What constants make for neuron m, and where its states begin.
template <class C, class real>
struct NeuronConstants {
  real constants[C::constants > 0 ? C::constants : 1], derived[kDeviceDerived], rest[kDeviceStates];

  template <class Index>
  STDANO_INLINE NeuronConstants(const Arguments<real>& a, Index m) {
    const Index channel = a.has_tables ? channel_of(a, m) : 0;
#pragma unroll
    for (int j = 0; j < C::constants; ++j) {
      const ConstantSource<real>& c = a.constants[j];
      constants[j] = c.data ? c.data[c.per_neuron ? m : channel] : c.value;
    }
    C::derive(constants, derived, rest);
  }
};

// The same for all neurons.
template <class real>
struct NeuronConstants<void, real> {
  const real *derived, *rest;
  template <class Index>
  STDANO_INLINE NeuronConstants(const Arguments<real>& a, Index) : derived(a.derived), rest(a.rest) {}
};

// The affine map of a neuron's channel: its input is scale*(x - centre) + shift.
template <class real>
struct ChannelMap {
  real centre, scale, shift;

  template <class Index>
  STDANO_INLINE void load(const Arguments<real>& a, Index m) {
    const real* entry = a.affine + channel_of(a, m);
    centre = entry[0], scale = entry[a.g.channels], shift = entry[2 * a.g.channels];
  }
  STDANO_INLINE real operator()(real x) const { return fma_(scale, x - centre, shift); }
};

template <class S, class C, class scalar, class real, int width>
__global__ void __launch_bounds__(kForwardThreads, sizeof(real) == 4 ? 4 : 2)
    forward_kernel(const __grid_constant__ ForwardArguments<real> a) {
  constexpr bool general = !std::is_void<C>::value;
  constexpr int K = checkpoint_steps<real>;
  static_assert(width == 1 || !general, "constants of one neuron a thread");
  using Index = IndexOf<general>;
  using Neighbours = Few<scalar, real, width>;
  const Index m = (static_cast<Index>(blockIdx.x) * kForwardThreads + threadIdx.x) * width;
  if (m >= static_cast<Index>(a.g.N)) return;
  const NeuronConstants<C, real> c(a, m);
  real state[width][S::states];
  ChannelMap<real> map[width] = {};
  if (a.has_affine) {
#pragma unroll
    for (int i = 0; i < width; ++i) map[i].load(a, m + i);
  }
#pragma unroll
  for (int j = 0; j < S::states; ++j) {
    Pack<real, width> from;
    if (a.has_state0) from = load<width>(a.state0[j] + m);
#pragma unroll
    for (int i = 0; i < width; ++i) state[i][j] = a.has_state0 ? from.items[i] : c.rest[j];
  }
  const auto save = [&](real* to, int j) {
    Pack<real, width> values;
#pragma unroll
    for (int i = 0; i < width; ++i) values.items[i] = state[i][j];
    store(to, values);
  };

  Index at = offset(a, m);
  typename Neighbours::Raw next{};
  if (a.steps > 0) next = Neighbours::load(a.x, at, a.dtype);
  for (int t = 0; t < a.steps; ++t, at += static_cast<Index>(a.g.inner)) {
    real in[width], spikes[width];
    Neighbours::read(next, a.dtype, in);
    if (t + 1 < a.steps) next = Neighbours::load(a.x, at + static_cast<Index>(a.g.inner), a.dtype);
    if (a.has_checkpoints && t > 0 && t % K == 0) {
#pragma unroll
      for (int j = 0; j < S::states; ++j) save(a.checkpoints + checkpoint<S>(a, t / K - 1, j, m), j);
    }
#pragma unroll
    for (int i = 0; i < width; ++i) {
      if (a.has_affine) in[i] = map[i](in[i]);
      real u[S::spikes > 0 ? S::spikes : 1];
      spikes[i] = S::step(in[i], state[i], c.derived, a.alpha, state[i], u);
    }
    if (a.has_codes) {
      Pack<uint8_t, width> codes{};
      if (!a.is_first) codes = load<width>(a.codes + at);
#pragma unroll
      for (int i = 0; i < width; ++i) codes.items[i] |= static_cast<uint8_t>((spikes[i] != 0 ? 1 : 0) << a.bit);
      store(a.codes + at, codes);
    } else if (a.has_spikes) {
      Neighbours::store(a.spikes, at, a.dtype, spikes);
    }
    if constexpr (general) {
#pragma unroll 1
      for (int q = 0; q < a.sequences; ++q) {
        real value = state[0][0];
#pragma unroll
        for (int j = 1; j < S::states; ++j) value = a.which[q] == j ? state[0][j] : value;
        Memory<scalar>::store(a.sequence[q], at, a.dtype, value);
      }
    }
  }
  if (!a.has_state) return;
#pragma unroll
  for (int j = 0; j < S::states; ++j) save(a.state[j] + m, j);
}

// The way back of one neuron. `steps`: 4, all of them; 8, a multiple of it; 0, any number.
template <class S, class A, class C, class scalar, class real, int steps>
struct WayBack {
  static constexpr bool general = !std::is_void<C>::value;
  static constexpr int K = general ? checkpoint_steps<real> : steps;
  using Index = IndexOf<general>;
  using Values = Memory<scalar>;

  const BackwardArguments<real>& a;
  const Index m;
  const NeuronConstants<C, real> c;
  double &sum_shift, &sum_scale;
  real gradient[S::states], sums[kDeviceDerived] = {};

  STDANO_INLINE WayBack(const BackwardArguments<real>& arguments, Index neuron, double& of_shift, double& of_scale)
      : a(arguments), m(neuron), c(arguments, neuron), sum_shift(of_shift), sum_scale(of_scale) {
#pragma unroll
    for (int j = 0; j < S::states; ++j) gradient[j] = a.has_grad_state >> j & 1 ? a.grad_state[j][m] : real(0);
    if (steps == 4) {
      chunk(0, 4);
    } else {
      for (int first = (a.steps - 1) / K * K; first >= 0; first -= K) {
        chunk(first, a.steps - first < K ? a.steps - first : K);
      }
    }
    if (!a.has_state0) return;
#pragma unroll
    for (int j = 0; j < S::states; ++j) a.grad_state0[j][m] = gradient[j];
  }

 private:
  // A chunk of steps; those from `count` on are as if x were 0, and nobody wants theirs.
  struct Chunk {
    Index start;
    int count;
    bool closes;  // behind its last step nothing is wanted
    real state[S::states], in[K], g[K], before[K][S::states], slopes[K][S::spikes > 0 ? S::spikes : 1];
  };

  // Calls f(k, where its step lies) for the steps of a chunk.
  template <class F>
  STDANO_INLINE void each(const Chunk& v, F f) const {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (!general || k < v.count) f(k, v.start + static_cast<Index>(k) * static_cast<Index>(a.g.inner));
    }
  }

  STDANO_INLINE void chunk(int first, int count) {
    Chunk v;
    v.start = offset(a, m) + static_cast<Index>(first) * static_cast<Index>(a.g.inner);
    v.count = count;
    v.closes = a.closes && first + count == a.steps;
    typename Values::Bits x_bits[K] = {}, gradient_bits[K] = {};
    each(v, [&](int k, Index at) {
      x_bits[k] = Values::load(a.x, at, a.dtype);
      gradient_bits[k] = Values::load(a.grad_spikes, at, a.dtype);
    });
#pragma unroll
    for (int j = 0; j < S::states; ++j) {
      if (first > 0) {
        v.state[j] = a.checkpoints[checkpoint<S>(a, first / K - 1, j, m)];
      } else {
        v.state[j] = a.has_state0 ? a.state0[j][m] : c.rest[j];
      }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
      v.in[k] = Values::value(x_bits[k], a.dtype, real());
      v.g[k] = Values::value(gradient_bits[k], a.dtype, real());
    }
    if (a.has_codes) from_codes(v);
    if (a.has_affine) {
      ChannelMap<real> map;
      map.load(a, m);
#pragma unroll
      for (int k = 0; k < K; ++k) v.in[k] = map(v.in[k]);
    }
    walk<0>(v);

    forget_origin(v.start);  // or the places of all steps stay in registers from the loads on
    if (a.has_affine) from_map(v);
    if (a.has_codes) {
      if (a.sum) each(v, [&](int k, Index at) { v.g[k] = a.sum[at] + v.g[k]; });
      if (a.new_sum) {
        each(v, [&](int k, Index at) { a.new_sum[at] = v.g[k]; });
        return;
      }
    }
    each(v, [&](int k, Index at) { Values::store(a.grad_x, at, a.dtype, v.g[k]); });
  }

  // Through the steps of a chunk from `begin` on, and back. By fours, so that a short chunk costs less.
  template <int begin>
  STDANO_INLINE void walk(Chunk& v) {
    constexpr int end = begin + 4;
#pragma unroll
    for (int k = begin; k < end; ++k) {
#pragma unroll
      for (int j = 0; j < S::states; ++j) v.before[k][j] = v.state[j];
      S::step(v.in[k], v.state, c.derived, a.alpha, v.state, v.slopes[k]);
    }
    S::slopes::choose(a.surrogate, [&](auto slope) {
#pragma unroll
      for (int k = begin; k < end; ++k) {
#pragma unroll
        for (int i = 0; i < S::spikes; ++i) v.slopes[k][i] = decltype(slope)::of(v.slopes[k][i], a.alpha);
      }
    });
    if constexpr (end < K) {
      if (!general || v.count > end) walk<end>(v);
    }
    const int last = (general ? v.count : K) - 1;
    const bool closes = v.closes && last >= begin && last < end;
    if (closes) close(v, begin, last);
#pragma unroll
    for (int k = end - 1; k >= begin; --k) {
      if (k > last || (k == last && closes)) continue;
      if constexpr (general) add_sequences(v.start + static_cast<Index>(k) * a.g.inner);
      v.g[k] = A::template adjoint<general>(v.slopes[k], v.in[k], v.g[k], v.before[k], c.derived, a.alpha, gradient,
                                            sums);
    }
  }

  // The adjoint of step `last`, one of four from `begin` on, behind which nothing is wanted.
  STDANO_INLINE void close(Chunk& v, int begin, int last) {
    real x = 0, g = 0, before[S::states] = {}, slopes[S::spikes > 0 ? S::spikes : 1] = {};
#pragma unroll
    for (int k = begin; k < begin + 4; ++k) {  // an index that is known at run time alone would need memory
      if (k != last) continue;
      x = v.in[k], g = v.g[k];
#pragma unroll
      for (int j = 0; j < S::states; ++j) before[j] = v.before[k][j];
#pragma unroll
      for (int i = 0; i < S::spikes; ++i) slopes[i] = v.slopes[k][i];
    }
    g = A::last_adjoint(slopes, x, g, before, c.derived, a.alpha, gradient);
#pragma unroll
    for (int k = begin; k < begin + 4; ++k) v.g[k] = k == last ? g : v.g[k];
  }

  // From the gradient of the neuron's input to that of x.
  STDANO_INLINE void from_map(Chunk& v) {
    ChannelMap<real> map;
    map.load(a, m);
    real of_shift = 0, of_scale = 0;
    each(v, [&](int k, Index at) {
      const real x = Values::value(Values::load(a.x, at, a.dtype), a.dtype, real());
      of_shift += v.g[k];
      of_scale = fma_(v.g[k], x - map.centre, of_scale);
      v.g[k] = map.scale * v.g[k];
    });
    sum_shift += of_shift;
    sum_scale += of_scale;
  }

  STDANO_INLINE void from_codes(Chunk& v) const {
    const real* entry = a.table + channel_of(a, m);
    const real slope = entry[0], silent = entry[a.g.channels], fired = entry[2 * a.g.channels];
    each(v, [&](int k, Index at) {
      v.g[k] = fma_(slope, v.g[k], (a.codes[at] >> a.bit & 1) != 0 ? fired : silent);
    });
  }

  STDANO_INLINE void add_sequences(Index at) {
#pragma unroll 1
    for (int q = 0; q < a.sequences; ++q) {
      const real more = Values::value(Values::load(a.grad_sequence[q], at, a.dtype), a.dtype, real());
#pragma unroll
      for (int j = 0; j < S::states; ++j) gradient[j] = a.which[q] == j ? gradient[j] + more : gradient[j];
    }
  }
};

template <class S, class A, class C, class scalar, class real, int steps>
__global__ void __launch_bounds__(kBackwardThreads, sizeof(real) == 8 || !std::is_void<C>::value ? 4 : S::is_long ? 6 : 8)
    backward_kernel(const __grid_constant__ BackwardArguments<real> a) {
  constexpr bool general = !std::is_void<C>::value;
  using Index = IndexOf<general>;
  const Index thread = static_cast<Index>(blockIdx.x) * kBackwardThreads + threadIdx.x;
  if (thread >= static_cast<Index>(a.threads)) return;
  // Each thread uses its own elements alone: this is memory for what registers have no room for.
  __shared__ double of_shift[kBackwardThreads], of_scale[kBackwardThreads];
  __shared__ double of_constants[general ? kDeviceConstants : 1][kBackwardThreads];
  const int own = threadIdx.x;
  if (a.has_affine) of_shift[own] = of_scale[own] = 0;
  if constexpr (general) {
#pragma unroll
    for (int j = 0; j < C::constants; ++j) of_constants[j][own] = 0;
  }
  for (Index m = thread; m < static_cast<Index>(a.g.N); m += static_cast<Index>(a.threads)) {
    const WayBack<S, A, C, scalar, real, steps> way(a, m, of_shift[own], of_scale[own]);
    if constexpr (general) {
      if (!a.has_tables) continue;
      real gradients[C::constants > 0 ? C::constants : 1];
      C::finish(way.c.constants, way.sums, gradients);
      if (!a.has_state0) C::add_rest(way.gradient, gradients);
#pragma unroll
      for (int j = 0; j < C::constants; ++j) {
        if (a.grad_constants[j]) a.grad_constants[j][m] = gradients[j];
        of_constants[j][own] += gradients[j];
      }
    }
  }
  if (a.has_affine) {
    a.partial_shift[thread] = of_shift[own];
    a.partial_scale[thread] = of_scale[own];
  }
  if constexpr (general) {
#pragma unroll
    for (int j = 0; j < C::constants; ++j) {
      if (a.partial[j]) a.partial[j][thread] = of_constants[j][own];
    }
  }
}

template <class S, class A, class scalar>
FastKernels make_fast() {
  constexpr int width = S::is_long ? 4 : 16 / sizeof(scalar);
  return {forward_kernel<S, void, scalar, float, width>, backward_kernel<S, A, void, scalar, float, 4>,
          backward_kernel<S, A, void, scalar, float, 8>, width};
}

template <class S, class A, class C, bool doubles>
DeviceNeuron make_neuron(const char* name, int surrogate) {
  DeviceNeuron out{};
  out.name = name;
  out.states = S::states;
  out.constants = C::constants;
  out.surrogate = surrogate;
  out.is_long = S::is_long;
  out.derive = C::template derive<float>;
  out.general = {forward_kernel<S, C, AnyFloat, float, 1>, backward_kernel<S, A, C, AnyFloat, float, 0>};
  if constexpr (doubles) {  // for checks
    out.derive_double = C::template derive<double>;
    out.general_double = {forward_kernel<S, C, double, double, 1>, backward_kernel<S, A, C, double, double, 0>};
  }
  out.of_float32 = make_fast<S, A, float>();
  out.of_bfloat16 = make_fast<S, A, bfloat16>();
  out.of_float16 = make_fast<S, A, float16>();
  return out;
}

}  // namespace STDANO_ISA
}  // namespace stdano
