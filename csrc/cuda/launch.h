// From a call to the kernel that serves it: argument structures, vector width, grid. Free of torch, like the kernels.
#pragma once

#include "grid.h"
#include "kernels.h"

namespace stdano {
namespace STDANO_ISA {

template <class real, class Call>
void fill(Arguments<real>& a, const Call& call) {
  const Options& o = call.o;
  fill_layout(a, call.g);
  a.steps = static_cast<int>(call.g.T);
  a.surrogate = static_cast<int>(o.surrogate);
  a.alpha = real(o.alpha);
  a.settings = make_settings<real>(o);
  a.constants = make_constants(a.settings, real(o.tau), real(o.threshold));
  a.v0 = static_cast<const real*>(call.v0);
  a.adapt0 = static_cast<const real*>(call.adapt0);
  a.tau = static_cast<const real*>(call.tau);
  a.threshold = static_cast<const real*>(call.threshold);
}

template <class N, class scalar, class real, class Stream>
void forward(const ForwardCall& call, Stream stream) {
  ForwardArguments<real> a;
  fill(a, call);
  a.affine = static_cast<const real*>(call.affine);
  a.one_channel = false;
  a.v = static_cast<real*>(call.v);
  a.adapt = static_cast<real*>(call.adapt);
  a.checkpoints = static_cast<real*>(call.checkpoints);
  const scalar* x = static_cast<const scalar*>(call.x);
  scalar* spikes = static_cast<scalar*>(call.spikes);
  scalar* v_seq = static_cast<scalar*>(call.v_seq);
  const auto start = [&](auto kernel, int width) {
    STDANO_LAUNCH(kernel, count_blocks((call.g.N + width - 1) / width, kForwardThreads), kForwardThreads, stream, x,
                  spikes, v_seq, a);
  };
  if (call.o.soft_spike) return start(forward_kernel<N, scalar, real, 1, Kind::soft>, 1);
  // SLIF takes no more than 4: it needs many registers, as does float64, which is for checks.
  constexpr int width = sizeof(real) == 8 ? 1 : N::needs_v ? 4 : 16 / sizeof(scalar);
  const bool aligned = call.g.inner % width == 0 &&
                       all_aligned(16, x, spikes, v_seq, call.v0, call.adapt0, call.v, call.adapt, call.checkpoints);
  const auto start_either = [&](auto wide, auto narrow) { aligned ? start(wide, width) : start(narrow, 1); };
  if (call.affine) {
    // A map takes three registers a neuron, so that there is no room for constants of each.
    constexpr int fewer = width < 4 ? width : 4;
    a.one_channel = call.g.channel_stride % fewer == 0;
    if (aligned && (a.one_channel || (!call.tau && !call.threshold))) {
      return start(forward_kernel<N, scalar, real, fewer, Kind::affine>, fewer);
    }
    return start(forward_kernel<N, scalar, real, 1, Kind::affine>, 1);
  }
  if (call.tau || call.threshold) {
    return start_either(forward_kernel<N, scalar, real, width, Kind::tensors>,
                        forward_kernel<N, scalar, real, 1, Kind::tensors>);
  }
  start_either(forward_kernel<N, scalar, real, width, Kind::shared>, forward_kernel<N, scalar, real, 1, Kind::shared>);
}

template <class N, class scalar, class real, class Stream>
void backward(const BackwardCall& call, Stream stream) {
  BackwardArguments<real> a;
  fill(a, call);
  a.checkpoints = static_cast<const real*>(call.checkpoints);
  a.grad_v = static_cast<const real*>(call.grad_v);
  a.grad_adapt = static_cast<const real*>(call.grad_adapt);
  a.grad_v0 = static_cast<real*>(call.grad_v0);
  a.grad_adapt0 = static_cast<real*>(call.grad_adapt0);
  a.slices = make_slices(call.g);
  a.columns = make_divisor(a.slices.columns);
  a.partial = call.grad_constants;
  a.affine = static_cast<const real*>(call.affine);
  const auto start = [&](auto kernel, int64_t threads) {
    STDANO_LAUNCH(kernel, count_blocks(threads, kBackwardThreads), kBackwardThreads, stream,
                  static_cast<const scalar*>(call.x), static_cast<const scalar*>(call.grad_spikes),
                  static_cast<const scalar*>(call.grad_v_seq), static_cast<scalar*>(call.grad_x), a);
  };
  const int64_t summing_threads = a.slices.slabs * a.slices.columns;
  if (call.o.soft_spike) {
    return start(summing_backward_kernel<N, scalar, real, Kind::soft, any_surrogate>, summing_threads);
  }
  if (call.affine) {
    return start(summing_backward_kernel<N, scalar, real, Kind::affine, any_surrogate>, summing_threads);
  }
  const auto start_with = [&](auto surrogate) {
    constexpr Surrogate kind = decltype(surrogate)::value;
    if (call.tau || call.threshold) {
      return start(summing_backward_kernel<N, scalar, real, Kind::tensors, kind>, summing_threads);
    }
    start(backward_kernel<N, scalar, real, kind>, call.g.N);
  };
  if constexpr (sizeof(real) == 8) {
    start_with(std::integral_constant<Surrogate, any_surrogate>());
  } else {
    with_surrogate(call.o.surrogate, start_with);
  }
}

template <class N_, class scalar_, class real_>
struct Types {
  using N = N_;
  using scalar = scalar_;
  using real = real_;
};

template <template <class, bool> class N, bool soft_reset, class F>
void choose_dtype(Dtype dtype, F f) {
  choose_numbers(dtype, [&](auto numbers) {
    using real = typename decltype(numbers)::real;
    f(Types<N<real, soft_reset>, typename decltype(numbers)::scalar, real>());
  });
}

template <class T, class Stream>
void run(const ForwardCall& call, Stream stream) {
  forward<typename T::N, typename T::scalar, typename T::real>(call, stream);
}
template <class T, class Stream>
void run(const BackwardCall& call, Stream stream) {
  backward<typename T::N, typename T::scalar, typename T::real>(call, stream);
}

// One launch a call; none for an empty tensor.
template <template <class, bool> class N, class Call, class Stream>
void launch(const Call& call, Stream stream) {
  if (call.g.N == 0) return;
  const auto f = [&](auto types) { run<decltype(types)>(call, stream); };
  call.o.soft_reset ? choose_dtype<N, true>(call.o.dtype, f) : choose_dtype<N, false>(call.o.dtype, f);
}

}  // namespace STDANO_ISA
}  // namespace stdano
