// The CUDA kernels: one thread walks one neuron, or a few neighbouring ones, through all time steps around the steps
// of ../neurons.h. Free of torch, so that a host compiler can build it too.
//
// Forward holds nothing but the state, so a thread takes as many neurons as one access of 16 bytes holds. Backward
// recomputes a chunk of steps in registers, last chunk first, and takes one neuron a thread: two would need more
// than 64 registers.
#pragma once

#include "arguments.h"

namespace stdano {
namespace STDANO_ISA {

// `kind` says where the constants come from and whether spikes are soft or x is mapped; a plain call's kernel knows of
// none of these. With a map, neighbours share their constants: the launcher sees to it.
template <class N, class scalar, class real, int width, Kind kind>
__global__ void __launch_bounds__(kForwardThreads, forward_blocks<real>)
    forward_kernel(const scalar* __restrict__ x, scalar* __restrict__ spikes, scalar* __restrict__ v_seq,
                   const ForwardArguments<real> a) {
  const int64_t m = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * width;
  if (m >= a.g.N) return;
  const Settings<real> p = a.settings;
  constexpr bool one = kind == Kind::shared || kind == Kind::affine;
  Constants<real> c[one ? 1 : width];
#pragma unroll
  for (int i = 0; i < (one ? 1 : width); ++i) c[i] = constants_of<kind>(a, m + i);
  ChannelMap<real> map[width];
#pragma unroll
  for (int i = 0; i < width; ++i) map[i] = i > 0 && a.one_channel ? map[0] : map_of<kind>(a, a.affine, m + i);

  Pack<real, width> v, adapt;
  if (a.v0) v = load<width>(a.v0 + m);
  if (N::has_adapt && a.adapt0) adapt = load<width>(a.adapt0 + m);
#pragma unroll
  for (int i = 0; i < width; ++i) {
    if (!a.v0) v.items[i] = p.v_reset;
    if (!N::has_adapt || !a.adapt0) adapt.items[i] = N::initial_adapt(c[one ? 0 : i]);
  }

  int64_t at = offset(a, m);
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    if (a.checkpoints && t > 0 && t % checkpoint_steps<real> == 0) {
      real* to = a.checkpoints + (t / checkpoint_steps<real> - 1) * (N::has_adapt ? 2 : 1) * a.g.N + m;
      store(to, v);
      if (N::has_adapt) store(to + a.g.N, adapt);
    }
    const Pack<scalar, width> in = load<width>(x + at);
    Pack<scalar, width> out, potential;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const State<real> before{v.items[i], adapt.items[i]};
      const real kept = centred<kind>(a.affine, map[i], convert(in.items[i], real()));
      const Step<real> step = N::charge(p, c[one ? 0 : i], input<kind>(a.affine, map[i], kept), before);
      State<real> after;
      spike<kind>(a, step.u, [&](auto s) {
        after = N::update(p, step, before, s);
        out.items[i] = convert(times(s, real(1)), scalar());
      });
      v.items[i] = after.v;
      adapt.items[i] = after.adapt;
      potential.items[i] = convert(after.v, scalar());
    }
    store(spikes + at, out);
    if (v_seq) store(v_seq + at, potential);
  }
  if (a.v) store(a.v + m, v);
  if (N::has_adapt && a.adapt) store(a.adapt + m, adapt);
}

// What a neuron's steps add to the sums of its channel.
template <class real>
struct ConstantGradient {
  real tau = 0, threshold = 0, shift = 0, scale = 0;
};

// The whole sequence of neuron m, backward.
template <class N, class scalar, class real, Kind kind, Surrogate surrogate>
STDANO_INLINE ConstantGradient<real> walk_back(const scalar* __restrict__ x, const scalar* __restrict__ grad_spikes,
                                               const scalar* __restrict__ grad_v_seq, scalar* __restrict__ grad_x,
                                               const BackwardArguments<real>& a, int64_t m) {
  constexpr int K = checkpoint_steps<real>;
  const Settings<real> p = a.settings;
  const Constants<real> c = constants_of<kind>(a, m);
  const ChannelMap<real> map = map_of<kind>(a, a.affine, m);
  State<real> g{a.grad_v ? a.grad_v[m] : real(0), N::has_adapt && a.grad_adapt ? a.grad_adapt[m] : real(0)};
  ConstantGradient<real> sums;

  for (int first = (a.steps - 1) / K * K; first >= 0; first -= K) {
    const int count = a.steps - first < K ? a.steps - first : K;
    int64_t neuron = m;
    forget_origin(neuron);  // or its offset stays in registers from chunk to chunk
    const int64_t start = offset(a, neuron) + first * a.g.inner;
    State<real> state;
    if (first > 0) {
      const real* from = a.checkpoints + (first / K - 1) * (N::has_adapt ? 2 : 1) * a.g.N + m;
      state = {from[0], N::has_adapt ? from[a.g.N] : real(0)};
    } else {
      state = {a.v0 ? a.v0[m] : p.v_reset, N::has_adapt && a.adapt0 ? a.adapt0[m] : N::initial_adapt(c)};
    }

    // Indices into these are constants once the loops are unrolled, so they are registers.
    real in[K];
    State<real> before[K];
    int64_t at = start;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k < count) {
        in[k] = centred<kind>(a.affine, map, convert(x[at], real()));
        at += a.g.inner;
      }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k < count) {
        before[k] = state;
        const Step<real> step = N::charge(p, c, input<kind>(a.affine, map, in[k]), state);
        spike<kind>(a, step.u, [&](auto s) { state = N::update(p, step, state, s); });
      }
    }
#pragma unroll
    for (int k = K - 1; k >= 0; --k) {
      if (k < count) {
        at -= a.g.inner;
        forget_origin(at);  // or all K addresses stay in registers from the loop above
        if (grad_v_seq) g.v += convert(grad_v_seq[at], real());
        const real gs = convert(grad_spikes[at], real());
        if (kind == Kind::affine) forget_origin(in[k]);  // or the map's results stay in registers from the loop above
        const real in_k = input<kind>(a.affine, map, in[k]);
        const Step<real> step = N::charge(p, c, in_k, before[k]);
        const real sigma = derivative<surrogate>(a.surrogate, step.u, a.alpha);
        StepGradient<real> out;
        spike<kind>(a, step.u, [&](auto s) { out = N::adjoint(p, c, in_k, before[k].v, step, s, sigma, gs, g); });
        if (has_map<kind>(a.affine)) {
          sums.shift += out.x;
          sums.scale = fma_(out.x, in[k], sums.scale);
          out.x = map.scale * out.x;
        }
        grad_x[at] = convert(out.x, scalar());
        sums.tau += out.tau;
        sums.threshold += out.threshold;
      }
    }
  }
  if (a.grad_v0) a.grad_v0[m] = g.v;
  if (N::has_adapt && a.grad_adapt0) a.grad_adapt0[m] = g.adapt;
  if (N::adapt_starts_at_threshold && !a.adapt0) sums.threshold += g.adapt;
  return sums;
}

template <class N, class scalar, class real, Surrogate surrogate>
__global__ void __launch_bounds__(kBackwardThreads, backward_blocks<real, Kind::shared>)
    backward_kernel(const scalar* __restrict__ x, const scalar* __restrict__ grad_spikes,
                    const scalar* __restrict__ grad_v_seq, scalar* __restrict__ grad_x,
                    const BackwardArguments<real> a) {
  const int64_t m = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (m < a.g.N) walk_back<N, scalar, real, Kind::shared, surrogate>(x, grad_spikes, grad_v_seq, grad_x, a, m);
}

// With sums for each channel, or soft spikes: a thread takes the neurons of one column, `columns` apart, so that it
// stays within a channel, and adds up theirs. Which neurons those are depends on the shape alone.
template <class N, class scalar, class real, Kind kind, Surrogate surrogate>
__global__ void __launch_bounds__(kBackwardThreads, backward_blocks<real, kind>)
    summing_backward_kernel(const scalar* __restrict__ x, const scalar* __restrict__ grad_spikes,
                            const scalar* __restrict__ grad_v_seq, scalar* __restrict__ grad_x,
                            const BackwardArguments<real> a) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t columns = a.slices.columns;
  if (thread >= a.slices.slabs * columns) return;
  // Each thread uses its own elements alone: this is memory for what registers have no room for.
  constexpr bool may_map = kind == Kind::soft || kind == Kind::affine;
  __shared__ double tau[kBackwardThreads], threshold[kBackwardThreads];
  __shared__ double shift[may_map ? kBackwardThreads : 1], scale[may_map ? kBackwardThreads : 1];
  __shared__ int64_t neuron[kBackwardThreads];
  const int i = threadIdx.x;
  tau[i] = threshold[i] = 0;
  if (may_map) shift[i] = scale[i] = 0;
  neuron[i] = divide(thread, a.columns) * (a.slices.rows - 1) * columns + thread;  // slab*rows*columns + column
  for (int row = 0; row < a.slices.rows && neuron[i] < a.g.N; ++row) {
    const ConstantGradient<real> sums =
        walk_back<N, scalar, real, kind, surrogate>(x, grad_spikes, grad_v_seq, grad_x, a, neuron[i]);
    tau[i] += sums.tau;
    threshold[i] += sums.threshold;
    if (may_map) {
      shift[i] += sums.shift;
      scale[i] += sums.scale;
    }
    neuron[i] += columns;
  }
  if (!a.partial) return;
  const int64_t size = a.slices.slabs * columns;
  if (kind == Kind::tensors || a.tau || a.threshold) {
    a.partial[sum_tau * size + thread] = tau[i];
    a.partial[sum_threshold * size + thread] = threshold[i];
  }
  if (has_map<kind>(a.affine)) {
    a.partial[sum_shift * size + thread] = shift[i];
    a.partial[sum_scale * size + thread] = scale[i];
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
