// The forward and the backward pass over a block of neurons, and the table of kernels of one instruction set.
#pragma once

#include <type_traits>

#include "super_neuron.h"

namespace stdano {
namespace STDANO_ISA {

template <class real>
STDANO_INLINE real* at(void* base, int64_t m) {
  return base ? static_cast<real*>(base) + m : nullptr;
}
template <class real>
STDANO_INLINE const real* at(const void* base, int64_t m) {
  return base ? static_cast<const real*>(base) + m : nullptr;
}

template <class real>
STDANO_INLINE void copy(real* to, const real* from, int64_t n) {
  std::memcpy(to, from, n * sizeof(real));
}

template <class L, class scalar, class real, bool by_channel>
constexpr bool has_short_loops = kSpecialised && !by_channel && !L::N::needs_v && std::is_same<scalar, real>::value;

// Where neither sums nor soft spikes are asked for, nor float64, which serves checks.
template <class real, bool by_channel>
constexpr bool has_fused_adjoint = kSpecialised && !by_channel && sizeof(real) == 4;

template <class L, class real>
void advance_all(typename L::View c, const typename L::P& p, const ChannelMap<real>& map, const real* x,
                 const real* v, const real* adapt, real* spikes, int64_t stride, int64_t n) {
  const auto loop = map ? L::template advance_all<kShort, true> : L::template advance_all<kShort, false>;
  loop(c, p, map.view(), x, v, adapt, spikes, stride, n);
}

template <class L, class real>
void adjoint_all(const Options& o, typename L::View c, const typename L::P& p, const ChannelMap<real>& map,
                 const real* x, const real* v, const real* adapt, const real* gs, real* gv, real* gadapt, real* gx,
                 int64_t stride, int64_t n) {
  with_surrogate(o.surrogate, [&](auto kind) {
    constexpr Surrogate s = decltype(kind)::value;
    const auto loop = map ? L::template adjoint_all<s, kShort, true> : L::template adjoint_all<s, kShort, false>;
    loop(c, p, map.view(), real(o.alpha), x, v, adapt, gs, gv, gadapt, gx, stride, n);
  });
}

template <class L, class scalar, class real, bool by_channel>
void forward(const ForwardCall& call, int64_t begin, int64_t end) {
  using N = typename L::N;
  const Geometry& g = call.g;
  const Options& o = call.o;
  const typename L::P p = make_settings_as<typename L::P>(o);
  const int64_t columns = kForwardBlock;
  Workspace<real> workspace(BlockConstants<real, by_channel>::rows + ChannelMap<real>::rows + N::kept + 6, columns);
  BlockConstants<real, by_channel> constants(o, call.tau, call.threshold, workspace, columns);
  ChannelMap<real> map(call.affine, workspace, columns);
  real *v = workspace.take(), *adapt = workspace.take(), *x_buffer = workspace.take(), *s_buffer = workspace.take();
  real *u = workspace.take(), *v_kept = workspace.take(), *kept = workspace.take(N::kept);

  for (int64_t index = begin; index < end; ++index) {
    const Block block = forward_block(g, index), next = forward_block(g, index + 1);
    const int64_t m = block.begin, n = block.size;
    if (N::needs_v) {
      prefetch<false>(static_cast<const scalar*>(call.x), next);
      prefetch<true>(static_cast<scalar*>(call.spikes), next);
    }
    constants.prepare(block);
    map.prepare(block);
    const auto c = constants.view();
    L::initialize(c, p, at<real>(call.v0, m), at<real>(call.adapt0, m), v, adapt, n);
    if constexpr (has_short_loops<L, scalar, real, by_channel>) {
      if (g.T == kShort && block.contiguous() && !call.v && !call.v_seq) {
        const int64_t at0 = block.offset(0);
        advance_all<L>(c, p, map, static_cast<const real*>(call.x) + at0, v, adapt,
                       static_cast<real*>(call.spikes) + at0, g.inner, n);
        continue;
      }
    }
    for (int64_t t = 0; t < g.T; ++t) {
      if (call.checkpoints && t > 0 && t % kCheckpointSteps == 0) {
        real* to = at<real>(call.checkpoints, (t / kCheckpointSteps - 1) * (N::has_adapt ? 2 : 1) * g.N + m);
        copy(to, v, n);
        if (N::has_adapt) copy(to + g.N, adapt, n);
      }
      const real* x = Rows<scalar, real>::load(call.x, block, t, x_buffer);
      if (map) x = map.apply(x, x_buffer, n);
      real* spikes = Rows<scalar, real>::target(call.spikes, block, t, s_buffer);
      if (o.soft_spike) {
        L::charge(c, p, x, v, adapt, kept, v_kept, u, columns, n);
        surrogate<SurrogateValue::primitive>(o.surrogate, real(o.alpha), u, spikes, n);
        L::update(c, p, kept, spikes, v, adapt, columns, n);
      } else {
        L::template advance<false>(c, p, x, v, adapt, spikes, kept, v_kept, columns, t == 0 && !call.adapt0, n);
      }
      Rows<scalar, real>::store(call.spikes, block, t, spikes);
      if (call.v_seq) {
        real* to = Rows<scalar, real>::target(call.v_seq, block, t, v);
        if (to != v) copy(to, v, n);
        Rows<scalar, real>::store(call.v_seq, block, t, v);
      }
    }
    if (call.v) copy(at<real>(call.v, m), v, n);
    if (call.adapt && N::has_adapt) copy(at<real>(call.adapt, m), adapt, n);
  }
}

template <class L, class scalar, class real, bool by_channel>
void backward(const BackwardCall& call, int64_t begin, int64_t end) {
  using N = typename L::N;
  using Scalars = Rows<scalar, real>;
  const Geometry& g = call.g;
  const Options& o = call.o;
  const typename L::P p = make_settings_as<typename L::P>(o);
  const int64_t columns = backward_block(g);
  const int64_t blocks = count_backward_blocks(g), slabs = count_slabs(g, by_channel || call.affine);
  const int64_t steps = recomputed_steps(g);
  Workspace<real> workspace(
      BlockConstants<real, by_channel>::rows + ChannelMap<real>::rows + 10 + steps * (N::kept + 2), columns);
  BlockConstants<real, by_channel> constants(o, call.tau, call.threshold, workspace, columns);
  ChannelMap<real> map(call.affine, workspace, columns);
  real *v = workspace.take(), *adapt = workspace.take(), *gv = workspace.take(), *gadapt = workspace.take();
  real *buffer = workspace.take(), *out_buffer = workspace.take(), *spikes = workspace.take();
  real *sigma = workspace.take(), *gtau = workspace.take(), *gthreshold = workspace.take();
  real *kept = workspace.take(steps * N::kept), *v_kept = workspace.take(steps), *x_rows = workspace.take(steps);
  const real* x[kCheckpointSteps];

  for (int64_t slab = begin; slab < end; ++slab) {
    double* sums = call.grad_constants + slab * constant_sums * g.channels;
    for (int64_t index = slab * blocks / slabs; index < (slab + 1) * blocks / slabs; ++index) {
      const Block block = block_at(g, index, columns), next = block_at(g, index + 1, columns);
      const int64_t m = block.begin, n = block.size;
      if (N::needs_v) {
        prefetch<false>(static_cast<const scalar*>(call.x), next);
        prefetch<false>(static_cast<const scalar*>(call.grad_spikes), next);
        prefetch<true>(static_cast<scalar*>(call.grad_x), next);
      }
      constants.prepare(block);
      map.prepare(block);
      const auto c = constants.view();
      for (int64_t i = 0; i < n; ++i) {
        gv[i] = call.grad_v ? at<real>(call.grad_v, m)[i] : real(0);
        gadapt[i] = call.grad_adapt ? at<real>(call.grad_adapt, m)[i] : real(0);
        gtau[i] = gthreshold[i] = 0;
      }
      map.clear_sums(n);
      bool done = false;
      if constexpr (has_short_loops<L, scalar, real, by_channel>) {
        if (g.T == kShort && block.contiguous() && !call.grad_v_seq) {
          const int64_t at0 = block.offset(0);
          L::initialize(c, p, at<real>(call.v0, m), at<real>(call.adapt0, m), v, adapt, n);
          adjoint_all<L>(o, c, p, map, static_cast<const real*>(call.x) + at0, v, adapt,
                         static_cast<const real*>(call.grad_spikes) + at0, gv, gadapt,
                         static_cast<real*>(call.grad_x) + at0, g.inner, n);
          done = true;
        }
      }
      for (int64_t chunk = done ? -1 : (g.T - 1) / kCheckpointSteps; chunk >= 0; --chunk) {
        const int64_t first = chunk * kCheckpointSteps;
        const int64_t count = g.T - first < kCheckpointSteps ? g.T - first : kCheckpointSteps;
        if (chunk > 0) {
          const real* from = at<real>(call.checkpoints, (chunk - 1) * (N::has_adapt ? 2 : 1) * g.N + m);
          copy(v, from, n);
          if (N::has_adapt) copy(adapt, from + g.N, n);
        } else {
          L::initialize(c, p, at<real>(call.v0, m), at<real>(call.adapt0, m), v, adapt, n);
        }
        for (int64_t k = 0; k < count; ++k) {
          real* keep = kept + k * N::kept * columns;
          x[k] = Scalars::load(call.x, block, first + k, x_rows + k * columns);
          if (map) x[k] = map.apply(x[k], x_rows + k * columns, n);
          if (o.soft_spike) {
            L::charge(c, p, x[k], v, adapt, keep, v_kept + k * columns, buffer, columns, n);
            surrogate<SurrogateValue::primitive>(o.surrogate, real(o.alpha), buffer, spikes, n);
            L::update(c, p, keep, spikes, v, adapt, columns, n);
          } else {
            L::template advance<true>(c, p, x[k], v, adapt, spikes, keep, v_kept + k * columns, columns,
                                      first + k == 0 && !call.adapt0, n);
          }
        }
        for (int64_t k = count - 1; k >= 0; --k) {
          const real* keep = kept + k * N::kept * columns;
          if (call.grad_v_seq) {
            const real* extra = Scalars::load(call.grad_v_seq, block, first + k, buffer);
            for (int64_t i = 0; i < n; ++i) gv[i] += extra[i];
          }
          real* gx = Scalars::target(call.grad_x, block, first + k, out_buffer);
          if constexpr (has_fused_adjoint<real, by_channel>) {
            const real* gs = Scalars::load(call.grad_spikes, block, first + k, buffer);
            with_surrogate(o.surrogate, [&](auto kind) {
              L::template adjoint_hard<decltype(kind)::value>(c, p, real(o.alpha), x[k], v_kept + k * columns, keep, gs,
                                                              gv, gadapt, gx, columns, n);
            });
          } else {
            L::restore_u(c, keep, buffer, columns, n);
            surrogate<SurrogateValue::derivative>(o.surrogate, real(o.alpha), buffer, sigma, n);
            if (o.soft_spike) surrogate<SurrogateValue::primitive>(o.surrogate, real(o.alpha), buffer, spikes, n);
            const real* gs = Scalars::load(call.grad_spikes, block, first + k, buffer);
            const auto adjoint = o.soft_spike ? L::template adjoint<true> : L::template adjoint<false>;
            adjoint(c, p, x[k], v_kept + k * columns, keep, spikes, sigma, gs, gv, gadapt, gx, gtau, gthreshold,
                    columns, n);
          }
          if (map) map.adjoint(Scalars::load(call.x, block, first + k, buffer), gx, n);
          Scalars::store(call.grad_x, block, first + k, gx);
        }
      }
      if (call.grad_v0) copy(at<real>(call.grad_v0, m), gv, n);
      if (call.grad_adapt0) copy(at<real>(call.grad_adapt0, m), gadapt, n);
      if (by_channel) {
        if (N::adapt_starts_at_threshold && !call.adapt0) {
          for (int64_t i = 0; i < n; ++i) gthreshold[i] += gadapt[i];
        }
        add_row(block, gtau, sums + sum_tau * g.channels);
        add_row(block, gthreshold, sums + sum_threshold * g.channels);
      }
      if (map) map.add_sums(block, sums + sum_shift * g.channels, sums + sum_scale * g.channels);
    }
  }
}

// From run-time options to the instantiation that serves them. float64 and soft spikes are for checking: they
// take the general form, with a table of constants, alone.
template <class L, class scalar, class real, bool by_channel>
void run_loops(const ForwardCall& call, int64_t begin, int64_t end) {
  forward<L, scalar, real, by_channel>(call, begin, end);
}

template <class L, class scalar, class real, bool by_channel>
void run_loops(const BackwardCall& call, int64_t begin, int64_t end) {
  backward<L, scalar, real, by_channel>(call, begin, end);
}

template <template <class, bool> class N, class scalar, class real, bool by_channel, class P, class Call>
void run_reset(const Call& call, int64_t begin, int64_t end) {
  if (call.o.soft_reset) {
    return run_loops<Loops<N, real, true, by_channel, P>, scalar, real, by_channel>(call, begin, end);
  }
  run_loops<Loops<N, real, false, by_channel, P>, scalar, real, by_channel>(call, begin, end);
}

template <template <class, bool> class N, class scalar, class real, class Call>
void run_constants(const Call& call, int64_t begin, int64_t end) {
  if constexpr (sizeof(real) == 4) {
    if (!call.tau && !call.threshold && !call.o.soft_spike) {
      if constexpr (kSpecialised) {
        if (is_plain(call.o)) return run_reset<N, scalar, real, false, PlainSettings<real>>(call, begin, end);
      }
      return run_reset<N, scalar, real, false, Settings<real>>(call, begin, end);
    }
  }
  run_reset<N, scalar, real, true, Settings<real>>(call, begin, end);
}

template <template <class, bool> class N, class Call>
void run_dtype(const Call& call, int64_t begin, int64_t end) {
  switch (call.o.dtype) {
    case Dtype::float32: return run_constants<N, float, float>(call, begin, end);
    case Dtype::float64: return run_constants<N, double, double>(call, begin, end);
    case Dtype::bfloat16: return run_constants<N, bfloat16, float>(call, begin, end);
    case Dtype::float16: return run_constants<N, float16, float>(call, begin, end);
  }
}

template <class Call>
void run(const Call& call, int64_t begin, int64_t end) {
  switch (call.o.neuron) {
    case Neuron::lif: return run_dtype<LIF>(call, begin, end);
    case Neuron::llif: return run_dtype<LLIF>(call, begin, end);
    case Neuron::slif: return run_dtype<SLIF>(call, begin, end);
  }
}

template <template <class, class> class Pass, class Call>
void run_pass(Dtype dtype, const Call& call, int64_t begin, int64_t end) {
  switch (dtype) {
    case Dtype::float32: return Pass<float, float>::run(call, begin, end);
    case Dtype::float64: return Pass<double, double>::run(call, begin, end);
    case Dtype::bfloat16: return Pass<bfloat16, float>::run(call, begin, end);
    case Dtype::float16: return Pass<float16, float>::run(call, begin, end);
  }
}

// The passes around channels under names that run_pass can take.
#define STDANO_PASS(Name, Call, function, dtype)                                                    \
  template <class scalar, class real>                                                               \
  struct Name {                                                                                     \
    static void run(const Call& call, int64_t begin, int64_t end) {                                 \
      function<scalar, real>(call, begin, end);                                                     \
    }                                                                                               \
  };                                                                                                \
  inline void run(const Call& call, int64_t begin, int64_t end) { run_pass<Name>(dtype, call, begin, end); }
STDANO_PASS(Encode, EncodeCall, encode, call.neurons.o[0].dtype)
STDANO_PASS(Decode, DecodeCall, decode, call.dtype)
STDANO_PASS(SuperSums, SuperSumsCall, super_sums, call.dtype)
STDANO_PASS(SuperBackward, SuperBackwardCall, super_backward, call.neurons.o[0].dtype)
STDANO_PASS(ChannelSums, ChannelSumsCall, channel_sums, call.dtype)
STDANO_PASS(ChannelAffine, ChannelAffineCall, channel_affine, call.dtype)
#undef STDANO_PASS

extern const Kernels kernels{count_forward_blocks,
                             count_slabs,
                             count_channel_slabs,
                             count_super_blocks,
                             run<ForwardCall>,
                             run<BackwardCall>,
                             run,
                             run,
                             run,
                             run,
                             run,
                             run};

}  // namespace STDANO_ISA
}  // namespace stdano
