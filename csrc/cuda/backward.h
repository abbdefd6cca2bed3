// The kernels of a neuron backward, by the functions S, C (see forward.h) and A (the adjoint of a step). A thread takes
// one neuron, and recomputes a chunk of steps in registers, last chunk first. How many steps a chunk has is known where a
// fast kernel is compiled: a test for each would cut the chunk into pieces, between which little is shared or overlaps.
#pragma once

#include "forward.h"

namespace stdano {
namespace STDANO_ISA {

// The way back of one neuron. `steps`: 4, all of them; 8, a multiple of it; 0, any number.
template <class S, class A, class C, class scalar, class real, int steps>
struct WayBack {
  static constexpr bool general = !std::is_void<C>::value;
  static constexpr int K = general ? checkpoint_steps<real> : steps;
  using Index = IndexOf<general>;
  using Values = Few<scalar, real, 1>;

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
    typename Values::Raw x[K] = {}, grad_spikes[K] = {};
    each(v, [&](int k, Index at) {
      x[k] = Values::load(a.x, at, a.dtype);
      grad_spikes[k] = Values::load(a.grad_spikes, at, a.dtype);
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
      v.in[k] = Values::get(x[k], a.dtype);
      v.g[k] = Values::get(grad_spikes[k], a.dtype);
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
    each(v, [&](int k, Index at) {
      typename Values::Raw out;
      Values::set(out, a.dtype, v.g[k]);
      Values::store(a.grad_x, at, a.dtype, out);
    });
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
      const real x = Values::get(Values::load(a.x, at, a.dtype), a.dtype);
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
      const real more = Values::get(Values::load(a.grad_sequence[q], at, a.dtype), a.dtype);
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

}  // namespace STDANO_ISA
}  // namespace stdano
