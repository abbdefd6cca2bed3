// The kernels of a neuron backward, by the functions S, C (see forward.h) and A (the adjoint of a step), or of several
// neurons that have x in common. A thread takes one neuron of each, and recomputes a chunk of steps in registers, last
// chunk first. How many steps a chunk has is known where a fast kernel is compiled: a test for each would cut the chunk
// into pieces, between which little is shared or overlaps.
#pragma once

#include "forward.h"

namespace stdano {
namespace STDANO_ISA {

// A neuron by its printed functions.
template <class S_, class A_, class C_>
struct Part {
  using S = S_;
  using A = A_;
  using C = C_;
};

// Constant input, and the sum of the steps' gradients so far.
template <class real>
struct Once {
  real x, sum;
};

// The way back of a neuron, or of several. `steps`: 4, all of them; 8, a multiple of it; 0, any number.
template <class C, class scalar, class real, int steps, class... Parts>
struct WayBack {
  static constexpr bool general = !std::is_void<C>::value;
  static constexpr int K = general ? checkpoint_steps<real> : steps, states = (Parts::S::states + ...);
  using Index = IndexOf<general>;
  using Values = Few<scalar, real, 1>;
  using M = std::conditional_t<(sizeof...(Parts) > 1), Near, Exact>;  // several have codes

  // Of one neuron in a chunk: `g` are the gradients of its spikes, then those of its inputs.
  template <class P>
  struct Walk {
    bool fired[K];
    const real* derived;
    real *gradient, state[P::S::states], g[K], before[K][P::S::states], slopes[K][at_least_one<P::S::spikes>];
  };

  const BackwardArguments<real>& a;
  const Index m;
  const NeuronConstants<C, real> c;
  real gradient[states], sums[kDeviceDerived] = {};
  // The chunk; its steps from `count` on are as if x were 0, and nobody wants theirs.
  int first, count;
  Index start;
  real in[K];

  STDANO_INLINE WayBack(const BackwardArguments<real>& arguments, Index neuron)
      : a(arguments), m(neuron), c(arguments, neuron) {
#pragma unroll
    for (int j = 0; j < states; ++j) gradient[j] = a.has_grad_state >> j & 1 ? a.grad_state[j][m] : real(0);
  }

  STDANO_INLINE void run(double& sum_shift, double& sum_scale, Once<real>& once) {
    if (a.constant) once = {Values::get(Values::load(a.x, m, a.dtype), a.dtype), real(kNothing)};
    first = steps == 4 ? 0 : (a.steps - 1) / K * K;
    for (; first >= 0; first -= K) {
      count = !general ? K : a.steps - first < K ? a.steps - first : K;
      take(sum_shift, sum_scale, once);
    }
    if (!a.has_state0) return;
#pragma unroll
    for (int j = 0; j < states; ++j) a.grad_state0[j][m] = gradient[j];
  }

 private:
  // Calls f(k, where its step lies) for the steps of the chunk.
  template <class F>
  STDANO_INLINE void each(F f) const {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (!general || k < count) f(k, start + static_cast<Index>(k) * static_cast<Index>(a.g.inner));
    }
  }

  STDANO_INLINE void take(double& sum_shift, double& sum_scale, Once<real>& once) {
    start = offset(a, m) + static_cast<Index>(first) * static_cast<Index>(a.g.inner);
    typename Values::Raw x[K] = {}, raw[K] = {};
    if (!a.constant) each([&](int k, Index at) { x[k] = Values::load(a.x, at, a.dtype); });
    each([&](int k, Index at) { raw[k] = Values::load(a.grad_spikes, at, a.dtype); });
    real grad[K], total[K];
    int codes[K] = {};
    if (a.coded.codes) each([&](int k, Index at) { codes[k] = a.coded.codes[at] >> a.coded.bit; });
#pragma unroll
    for (int k = 0; k < K; ++k) {
      in[k] = a.constant ? once.x : Values::get(x[k], a.dtype);
      grad[k] = Values::get(raw[k], a.dtype);
    }
    ChannelMap<real> map;
    if (a.affine) {
      map.load(a, a.affine, m);
#pragma unroll
      for (int k = 0; k < K; ++k) in[k] = map(in[k]);
    }
    int number = 0, state = 0, derived = 0;
    ((take_part<Parts>(number, state, derived, grad, codes, total), ++number, state += Parts::S::states,
      derived += Parts::S::derived),
     ...);

    forget_origin(start);  // or the places of all steps stay in registers from the loads on
    if (a.affine) from_map(total, sum_shift, sum_scale, once);
    if (a.coded.codes) {
      const real* sum = static_cast<const real*>(a.coded.sum);
      real* new_sum = static_cast<real*>(a.coded.new_sum);
      if (sum) each([&](int k, Index at) { total[k] = sum[at] + total[k]; });
      if (new_sum) {
        each([&](int k, Index at) { new_sum[at] = total[k]; });
        return;
      }
    }
    const auto write = [&](Index at, real value) {
      typename Values::Raw out;
      Values::set(out, a.dtype, value);
      Values::store(a.grad_x, at, a.dtype, out);
    };
    if (!a.constant) return each([&](int k, Index at) { write(at, total[k]); });
    real sum = once.sum;
#pragma unroll
    for (int k = K - 1; k >= 0; --k) {
      if (!general || k < count) sum += total[k];
    }
    once.sum = sum;
    if (first == 0) write(m, sum);
  }

  // One neuron's part in the gradients of inputs; its numbers begin at `state` and `derived` among those of all.
  template <class P>
  STDANO_INLINE void take_part(int number, int state, int derived, const real (&grad)[K], const int (&codes)[K],
                               real (&total)[K]) {
    Walk<P> v;
    v.derived = c.derived + derived;
    v.gradient = gradient + state;
#pragma unroll
    for (int j = 0; j < P::S::states; ++j) {
      if (first > 0) {
        v.state[j] = a.checkpoints[checkpoint<states>(a, first / K - 1, state + j, m)];
      } else {
        v.state[j] = a.has_state0 ? a.state0[state + j][m] : c.rest[state + j];
      }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) v.g[k] = grad[k], v.fired[k] = (codes[k] >> number & 1) != 0;
    if (a.coded.codes) {
      const real* row = static_cast<const real*>(a.coded.table) + channel_of(a, m) + 3 * number * a.g.channels;
      const real slope = row[0], silent = row[a.g.channels], fired = row[2 * a.g.channels];
#pragma unroll
      for (int k = 0; k < K; ++k) v.g[k] = fma_(slope, v.g[k], v.fired[k] ? fired : silent);
    }
    walk<0>(v);
#pragma unroll
    for (int k = 0; k < K; ++k) total[k] = number > 0 ? total[k] + v.g[k] : v.g[k];
  }

  // By fours, from step `begin` on: a short chunk then costs less.
  template <int begin, class P>
  STDANO_INLINE void walk(Walk<P>& v) {
    constexpr int end = begin + (K < 4 ? K : 4);
#pragma unroll
    for (int k = begin; k < end; ++k) {
#pragma unroll
      for (int j = 0; j < P::S::states; ++j) v.before[k][j] = v.state[j];
      P::S::template step<M>(in[k], v.state, v.derived, a.alpha, v.state, v.slopes[k], v.fired[k]);
    }
    P::S::slopes::choose(a.surrogate, [&](auto slope) {
#pragma unroll
      for (int k = begin; k < end; ++k) {
#pragma unroll
        for (int i = 0; i < P::S::spikes; ++i) v.slopes[k][i] = decltype(slope)::of(v.slopes[k][i], a.alpha);
      }
    });
    if constexpr (end < K) {
      if (!general || count > end) walk<end>(v);
    }
    const int last = (general ? count : K) - 1;
    const bool closes = a.closes && first + count == a.steps;
#pragma unroll
    for (int k = begin; k < end; ++k) {
      if (!closes || k != last) continue;
      v.g[k] = P::A::template last_adjoint<M>(v.slopes[k], in[k], v.g[k], v.before[k], v.derived, a.alpha, v.gradient,
                                              v.fired[k]);
    }
#pragma unroll
    for (int k = end - 1; k >= begin; --k) {
      if (k > last || (closes && k == last)) continue;
      if constexpr (general) add_sequences(start + static_cast<Index>(k) * a.g.inner);
      v.g[k] = P::A::template adjoint<general, M>(v.slopes[k], in[k], v.g[k], v.before[k], v.derived, a.alpha,
                                                  v.gradient, sums, v.fired[k]);
    }
  }

  // From the gradients of the neuron's inputs to those of x.
  STDANO_INLINE void from_map(real (&g)[K], double& sum_shift, double& sum_scale, const Once<real>& once) const {
    ChannelMap<real> map;
    map.load(a, a.affine, m);
    real of_shift = 0, of_scale = 0;
    each([&](int k, Index at) {
      const real x = a.constant ? once.x : Values::get(Values::load(a.x, at, a.dtype), a.dtype);
      of_shift += g[k];
      of_scale = fma_(g[k], x - map.centre, of_scale);
      g[k] = map.scale * g[k];
    });
    sum_shift += of_shift;
    sum_scale += of_scale;
  }

  STDANO_INLINE void add_sequences(Index at) {
#pragma unroll 1
    for (int q = 0; q < a.sequences; ++q) {
      const real more = Values::get(Values::load(a.grad_sequence[q], at, a.dtype), a.dtype);
#pragma unroll
      for (int j = 0; j < states; ++j) gradient[j] = a.which[q] == j ? gradient[j] + more : gradient[j];
    }
  }
};

// Blocks that a multiprocessor has at once, which say how many registers a thread may take.
template <class C, class real, int steps, class... Parts>
constexpr int backward_blocks() {
  if (sizeof(real) == 8 || !std::is_void<C>::value) return 4;
  if (sizeof...(Parts) > 1) return steps == 4 ? 5 : 4;
  return (Parts::S::is_long || ...) ? 6 : 8;
}

template <class C, class scalar, class real, int steps, class... Parts>
__global__ void __launch_bounds__(kBackwardThreads, backward_blocks<C, real, steps, Parts...>())
    backward_kernel(const __grid_constant__ BackwardArguments<real> a) {
  constexpr bool general = !std::is_void<C>::value;
  using Index = IndexOf<general>;
  const Index thread = static_cast<Index>(blockIdx.x) * kBackwardThreads + threadIdx.x;
  // Each thread uses its own elements alone: this is memory for what registers have no room for.
  constexpr int count = 2 + constants_of<C>;
  __shared__ double sums[count][kBackwardThreads];
  __shared__ Once<real> once[kBackwardThreads];
  const int own = threadIdx.x;
#pragma unroll
  for (int j = 0; j < count; ++j) sums[j][own] = 0;
  each_neuron(a.slices, thread, static_cast<Index>(a.g.N), [&](Index m) {
    WayBack<C, scalar, real, steps, Parts...> way(a, m);
    way.run(sums[0][own], sums[1][own], once[own]);
    if constexpr (general) {
      if (!a.has_tables) return;
      real gradients[at_least_one<C::constants>];
      C::finish(way.c.constants, way.sums, gradients);
      if (!a.has_state0) C::add_rest(way.gradient, gradients);
#pragma unroll
      for (int j = 0; j < C::constants; ++j) {
        if (a.grad_constants[j]) a.grad_constants[j][m] = gradients[j];
        sums[2 + j][own] += gradients[j];
      }
    }
  });
#pragma unroll
  for (int j = 0; j < count; ++j) {
    if (!a.partial[j]) continue;
    store_sum(a.partial[j], thread, a.slices.threads, (a.by_warp >> j & 1) != 0, sums[j][own]);
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
