// The CUDA kernels of the super neuron: one thread walks one neuron through all time steps, for LIF, LLIF and SLIF.
// Which of them are present, how they are reset and their surrogate are known at run time alone: the same for all
// threads, so that a kernel for each combination would gain little.
#pragma once

#include "channels.h"

namespace stdano {
namespace STDANO_ISA {

// 96 registers for each thread; 128 in float64, which serves checks, and on sm_120, where fewer spill 160 bytes.
template <class real>
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int super_backward_blocks = 4;
#else
constexpr int super_backward_blocks = sizeof(real) == 4 ? 5 : 4;
#endif

template <class real>
struct Member {
  Settings<real> settings;
  Constants<real> constants;
  bool soft_reset;
};

template <class real>
struct SuperMembers {
  int present, surrogate;
  real alpha;
  Member<real> members[kSuperNeurons];
};

template <class real>
SuperMembers<real> make_members(const SuperNeurons& neurons) {
  SuperMembers<real> out;
  out.present = static_cast<int>(neurons.present);
  out.surrogate = static_cast<int>(neurons.o[0].surrogate);
  out.alpha = real(neurons.o[0].alpha);
  for (int k = 0; k < kSuperNeurons; ++k) {
    const Options& o = neurons.o[k];
    out.members[k].settings = make_settings<real>(o);
    out.members[k].constants = make_constants(out.members[k].settings, real(o.tau), real(o.threshold));
    out.members[k].soft_reset = o.soft_reset;
  }
  return out;
}

template <class N, class real>
STDANO_INLINE State<real> zero_state(const Member<real>& member) {
  return {member.settings.v_reset, N::initial_adapt(member.constants)};
}

// One step, and whether there was a spike.
template <template <class, bool> class N, class real>
STDANO_INLINE bool advance(const Member<real>& member, real x, State<real>& state) {
  const Settings<real>& p = member.settings;
  const Step<real> step = N<real, false>::charge(p, member.constants, x, state);
  const bool fired = fires(step.u);
  state = member.soft_reset ? N<real, true>::update(p, step, state, fired)
                            : N<real, false>::update(p, step, state, fired);
  return fired;
}

template <class scalar, class real>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    encode_kernel(const scalar* __restrict__ x, uint8_t* __restrict__ codes, const SuperMembers<real> s,
                  const SumArguments a) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  double sums[kSuperNeurons] = {};
  const bool any = walk_column(a, thread, [&](int64_t at) {
    State<real> lif = zero_state<LIF<real, false>>(s.members[0]);
    State<real> llif = zero_state<LLIF<real, false>>(s.members[1]);
    State<real> slif = zero_state<SLIF<real, false>>(s.members[2]);
    int counts[kSuperNeurons] = {};
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const real in = convert(x[at], real());
      int code = 0;
      if (s.present & 1) code |= advance<LIF>(s.members[0], in, lif) ? 1 : 0;
      if (s.present & 2) code |= advance<LLIF>(s.members[1], in, llif) ? 2 : 0;
      if (s.present & 4) code |= advance<SLIF>(s.members[2], in, slif) ? 4 : 0;
      codes[at] = static_cast<uint8_t>(code);
#pragma unroll
      for (int k = 0; k < kSuperNeurons; ++k) counts[k] += code >> k & 1;
    }
#pragma unroll
    for (int k = 0; k < kSuperNeurons; ++k) sums[k] += counts[k];
  });
  if (any) store_sums(a, thread, sums);
}

template <class scalar, class real, int width>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    decode_kernel(const uint8_t* __restrict__ codes, scalar* __restrict__ y, const TableArguments<real> a) {
  const int64_t m = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * width;
  if (m >= a.g.N) return;
  Pack<real, width> table[kDecodeRows];
  load_table(a, m, table);
  int64_t at = offset(a, m);
#pragma unroll 4
  for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
    const Pack<uint8_t, width> code = load<width>(codes + at);
    Pack<scalar, width> out;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      real value = table[0].items[i];
#pragma unroll
      for (int k = 0; k < kSuperNeurons; ++k) {
        value += (code.items[i] >> k & 1) != 0 ? table[1 + k].items[i] : real(0);
      }
      out.items[i] = convert(value, scalar());
    }
    store(y + at, out);
  }
}

template <class scalar, class real>
__global__ void __launch_bounds__(kChannelThreads, channel_blocks)
    super_sums_kernel(const uint8_t* __restrict__ codes, const scalar* __restrict__ grad, const SumArguments a) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  double sums[kSuperSums] = {};
  const bool any = walk_column(a, thread, [&](int64_t at) {
    real of_neuron[kSuperSums] = {};
#pragma unroll 4
    for (int t = 0; t < a.steps; ++t, at += a.g.inner) {
      const int code = codes[at];
      const real gy = convert(grad[at], real());
      of_neuron[0] += gy;
#pragma unroll
      for (int k = 0; k < kSuperNeurons; ++k) of_neuron[1 + k] += (code >> k & 1) != 0 ? gy : real(0);
    }
#pragma unroll
    for (int k = 0; k < kSuperSums; ++k) sums[k] += of_neuron[k];
  });
  if (any) store_sums(a, thread, sums);
}

template <class real>
struct SuperBackwardArguments : Layout {
  int steps;
  SuperMembers<real> s;
  const real* table;
};

// A chunk of steps in registers: x, the gradient of y, codes as bits, and the sum of the neurons' gradients of x.
template <class real>
struct Chunk {
  static constexpr int K = checkpoint_steps<real>;
  int first, count;
  real in[K], gy[K], gx[K];
  uint32_t codes;
};

// Adds neuron k's adjoint of the chunk to gx; g is the gradient of its state behind the chunk, then in front of it.
template <class N, int k, class scalar, class real>
STDANO_INLINE void add_adjoint(const scalar* __restrict__ x, const SuperBackwardArguments<real>& a, int64_t m,
                               Chunk<real>& chunk, State<real>& g) {
  constexpr int K = Chunk<real>::K;
  const Settings<real>& p = a.s.members[k].settings;
  const Constants<real>& c = a.s.members[k].constants;
  State<real> state = zero_state<N>(a.s.members[k]);
  if (chunk.first > 0) {
    int64_t at = offset(a, m);
    for (int t = 0; t < chunk.first; ++t, at += a.g.inner) {
      const Step<real> step = N::charge(p, c, convert(x[at], real()), state);
      state = N::update(p, step, state, fires(step.u));
    }
  }
  State<real> before[K];
#pragma unroll
  for (int i = 0; i < K; ++i) {
    if (i < chunk.count) {
      before[i] = state;
      const bool fired = (chunk.codes >> (kSuperNeurons * i + k) & 1) != 0;
      state = N::update(p, N::charge(p, c, chunk.in[i], state), state, fired);
    }
  }
  forget_origin(m);  // or the channel stays in registers for the next neuron
  const real* row = a.table + 3 * k * a.g.channels + channel_of(a, m);
  const real slope = row[0], silent = row[a.g.channels], with_spike = row[2 * a.g.channels];
#pragma unroll
  for (int i = K - 1; i >= 0; --i) {
    if (i < chunk.count) {
      const bool fired = (chunk.codes >> (kSuperNeurons * i + k) & 1) != 0;
      const real gs = fma_(slope, chunk.gy[i], fired ? with_spike : silent);
      const Step<real> step = N::charge(p, c, chunk.in[i], before[i]);
      const real sigma = derivative<any_surrogate>(a.s.surrogate, step.u, a.s.alpha);
      chunk.gx[i] += N::adjoint(p, c, chunk.in[i], before[i].v, step, fired, sigma, gs, g).x;
    }
  }
}

template <template <class, bool> class N, int k, class scalar, class real>
STDANO_INLINE void add_member(const scalar* __restrict__ x, const SuperBackwardArguments<real>& a, int64_t m,
                              Chunk<real>& chunk, State<real>& g) {
  if (!(a.s.present >> k & 1)) return;
  if (a.s.members[k].soft_reset) {
    add_adjoint<N<real, true>, k>(x, a, m, chunk, g);
  } else {
    add_adjoint<N<real, false>, k>(x, a, m, chunk, g);
  }
}

// There are no checkpoints: every chunk but the first computes the states in front of it from the start on.
template <class scalar, class real>
__global__ void __launch_bounds__(kBackwardThreads, super_backward_blocks<real>)
    super_backward_kernel(const scalar* __restrict__ x, const scalar* __restrict__ grad,
                          const uint8_t* __restrict__ codes, scalar* __restrict__ grad_x,
                          const SuperBackwardArguments<real> a) {
  constexpr int K = Chunk<real>::K;
  const int64_t m = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (m >= a.g.N) return;
  State<real> lif{0, 0}, llif{0, 0}, slif{0, 0};
  Chunk<real> chunk;
  for (chunk.first = (a.steps - 1) / K * K; chunk.first >= 0; chunk.first -= K) {
    chunk.count = a.steps - chunk.first < K ? a.steps - chunk.first : K;
    chunk.codes = 0;
    int64_t at = offset(a, m) + chunk.first * a.g.inner;
#pragma unroll
    for (int i = 0; i < K; ++i) {
      if (i < chunk.count) {
        chunk.in[i] = convert(x[at], real());
        chunk.gy[i] = convert(grad[at], real());
        chunk.gx[i] = 0;
        chunk.codes |= static_cast<uint32_t>(codes[at]) << (kSuperNeurons * i);
        at += a.g.inner;
      }
    }
    add_member<LIF, 0>(x, a, m, chunk, lif);
    add_member<LLIF, 1>(x, a, m, chunk, llif);
    add_member<SLIF, 2>(x, a, m, chunk, slif);
#pragma unroll
    for (int i = K - 1; i >= 0; --i) {
      if (i < chunk.count) {
        at -= a.g.inner;
        forget_origin(at);  // or all K addresses stay in registers from the loop above
        grad_x[at] = convert(chunk.gx[i], scalar());
      }
    }
  }
}

template <class scalar, class real, class Stream>
void encode(const EncodeCall& call, Stream stream) {
  const SuperMembers<real> members = make_members<real>(call.neurons);
  const SumArguments a = sum_arguments(call.g, call.sums);
  STDANO_LAUNCH((encode_kernel<scalar, real>), count_blocks(a.slices.slabs * a.slices.columns, kChannelThreads),
                kChannelThreads, stream, static_cast<const scalar*>(call.x), call.codes, members, a);
}

template <class scalar, class real, class Stream>
void decode(const DecodeCall& call, Stream stream) {
  scalar* y = static_cast<scalar*>(call.y);
  constexpr int width = table_width<real>;
  const auto start = [&](auto kernel, int64_t threads, const TableArguments<real>& a) {
    STDANO_LAUNCH(kernel, count_blocks(threads, kChannelThreads), kChannelThreads, stream, call.codes, y, a);
  };
  start_widest<width, real>(call.g, call.table, start, decode_kernel<scalar, real, width>,
                            decode_kernel<scalar, real, 1>, call.codes, y);
}

template <class scalar, class real, class Stream>
void super_sums(const SuperSumsCall& call, Stream stream) {
  const SumArguments a = sum_arguments(call.g, call.sums);
  STDANO_LAUNCH((super_sums_kernel<scalar, real>), count_blocks(a.slices.slabs * a.slices.columns, kChannelThreads),
                kChannelThreads, stream, call.codes, static_cast<const scalar*>(call.grad), a);
}

template <class scalar, class real, class Stream>
void super_backward(const SuperBackwardCall& call, Stream stream) {
  SuperBackwardArguments<real> a;
  fill_layout(a, call.g);
  a.steps = static_cast<int>(call.g.T);
  a.s = make_members<real>(call.neurons);
  a.table = static_cast<const real*>(call.table);
  STDANO_LAUNCH((super_backward_kernel<scalar, real>), count_blocks(call.g.N, kBackwardThreads), kBackwardThreads,
                stream, static_cast<const scalar*>(call.x), static_cast<const scalar*>(call.grad), call.codes,
                static_cast<scalar*>(call.grad_x), a);
}

}  // namespace STDANO_ISA
}  // namespace stdano
