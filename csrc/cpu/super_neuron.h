// The super neuron on the CPU: a pass from x to codes and a pass from codes to y; backward a pass for the sums and a
// pass for the gradient of x. One neuron after the other runs over a block while its rows are in the first-level cache.
#pragma once

#include "loops.h"

namespace stdano {
namespace STDANO_ISA {

// One neuron's loops from the zero state, which all neurons of a block share.
template <template <class, bool> class Neuron_, class real, bool soft_reset>
struct SuperLoops {
  using L = Loops<Neuron_, real, soft_reset, false>;
  using N = typename L::N;

  static STDANO_INLINE State<real> zero_state(Settings<real> p, Constants<real> c) {
    return {p.v_reset, N::initial_adapt(c)};
  }

  // One step of the neurons that sets bit `bit` of the codes.
  static STDANO_LOOP void encode(Constants<real> c, Settings<real> p, const real* __restrict x, real* __restrict v,
                                 real* __restrict adapt, int32_t* __restrict codes, int32_t bit, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const State<real> before = L::state_at(v, adapt, i);
      const Step<real> step = N::charge(p, c, x[i], before);
      const bool fired = fires(step.u);
      const State<real> after = N::update(p, step, before, fired);
      v[i] = after.v;
      if (N::has_adapt) adapt[i] = after.adapt;
      codes[i] |= fired ? bit : 0;
    }
  }

  // The same for all steps of a short sequence. The first step's state is a constant, so its hyperbolic tangent and
  // exponential are computed once for the whole loop, and the last step's adaptation not at all.
  template <int steps>
  static STDANO_LOOP void encode_all(Constants<real> c, Settings<real> p, const real* x, int64_t x_stride,
                                     int32_t* codes, int64_t stride, int32_t bit, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) encode_rest<steps>(c, p, x + i, x_stride, codes + i, stride, bit, zero_state(p, c));
  }
  template <int steps>
  static STDANO_INLINE void encode_rest(Constants<real> c, Settings<real> p, const real* x, int64_t x_stride,
                                        int32_t* codes, int64_t stride, int32_t bit, State<real> before) {
    if constexpr (steps > 0) {
      const Step<real> step = N::charge(p, c, *x, before);
      const bool fired = fires(step.u);
      *codes |= -static_cast<int32_t>(fired) & bit;
      encode_rest<steps - 1>(c, p, x + x_stride, x_stride, codes + stride, stride, bit,
                             N::update(p, step, before, fired));
    }
  }

  // The gradient of the neuron's spikes from that of y; table: a row each of a, silent and fired.
  static STDANO_INLINE real spike_gradient(const real* table, int64_t columns, int64_t i, bool fired, real gy) {
    return fma_(table[i], gy, fired ? table[2 * columns + i] : table[columns + i]);
  }
  static STDANO_LOOP void spike_gradients(const real* __restrict table, int64_t columns, const real* __restrict u,
                                          const real* __restrict gy, real* __restrict gs, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) gs[i] = spike_gradient(table, columns, i, fires(u[i]), gy[i]);
  }

  // Recomputation and adjoint of a short sequence in one go, added to gx.
  template <Surrogate kind, int steps>
  static STDANO_LOOP void adjoint_all(Constants<real> c, Settings<real> p, real alpha, const real* x, int64_t x_stride,
                                      const real* gy, int64_t gy_stride, const real* table, int64_t columns, real* gx,
                                      int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      adjoint_rest<kind, steps>(c, p, alpha, x + i, x_stride, gy + i, gy_stride, table, columns, gx + i, i,
                                zero_state(p, c));
    }
  }
  template <Surrogate kind, int steps>
  static STDANO_INLINE State<real> adjoint_rest(Constants<real> c, Settings<real> p, real alpha, const real* x,
                                                int64_t x_stride, const real* gy, int64_t gy_stride, const real* table,
                                                int64_t columns, real* gx, int64_t i, State<real> before) {
    if constexpr (steps == 0) {
      return {0, 0};
    } else {
      Step<real> step = N::charge(p, c, *x, before);
      const bool fired = fires(step.u);
      State<real> g = adjoint_rest<kind, steps - 1>(c, p, alpha, x + x_stride, x_stride, gy + gy_stride, gy_stride,
                                                    table, columns, gx + columns, i, N::update(p, step, before, fired));
      // Nothing comes back through LLIF's last threshold, so its hyperbolic tangent is not needed: with 0 for it, the
      // product with a gradient of 0 has the same sign.
      if (steps == 1 && N::adapt_starts_at_threshold) step.tanh = 0;
      const real sigma = surrogate_derivative<kind>(step.u, alpha);
      const real gs = spike_gradient(table, columns, i, fired, *gy);
      *gx += N::adjoint(p, c, *x, before.v, step, fired, sigma, gs, g).x;
      return g;
    }
  }
};

// Calls f with the loops of each neuron that is present, from LIF to SLIF.
template <class real, class F>
void for_each_member(const SuperNeurons& neurons, F f) {
  const auto member = [&](Neuron neuron, auto hard, auto soft) {
    const int k = static_cast<int>(neuron);
    if (!(neurons.present >> k & 1)) return;
    neurons.o[k].soft_reset ? f(k, soft) : f(k, hard);
  };
  member(Neuron::lif, SuperLoops<LIF, real, false>(), SuperLoops<LIF, real, true>());
  member(Neuron::llif, SuperLoops<LLIF, real, false>(), SuperLoops<LLIF, real, true>());
  member(Neuron::slif, SuperLoops<SLIF, real, false>(), SuperLoops<SLIF, real, true>());
}

template <class real>
struct MemberSettings {
  explicit MemberSettings(const Options& o)
      : settings(make_settings<real>(o)), constants(make_constants(settings, real(o.tau), real(o.threshold))) {}
  Settings<real> settings;
  Constants<real> constants;
};

// The time steps of a block's tensor: where they lie, if all of them are one stride apart, or copied into rows.
template <class scalar, class real>
struct StepRows {
  StepRows(const void* base, const Block& b, real* buffer, int64_t columns) {
    if (std::is_same<scalar, real>::value && b.contiguous()) {
      data = static_cast<const real*>(base) + b.offset(0);
      stride = b.g.inner;
      return;
    }
    for (int64_t t = 0; t < b.g.T; ++t) Rows<scalar, real>::copy(base, b, t, buffer + t * columns);
    data = buffer;
    stride = columns;
  }
  const real* data;
  int64_t stride;
};

// Codes of a time step from the working form to bytes, and the spikes they hold.
inline STDANO_LOOP void store_codes(const int32_t* __restrict codes, uint8_t* __restrict out, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(codes[i]);
}

inline STDANO_LOOP void count_spikes(const int32_t* __restrict codes, int64_t n, int32_t* counts) {
  int32_t lif = 0, llif = 0, slif = 0;
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    lif += codes[i] & 1;
    llif += codes[i] >> 1 & 1;
    slif += codes[i] >> 2 & 1;
  }
  counts[0] = lif;
  counts[1] = llif;
  counts[2] = slif;
}

inline void add_counts(const Block& b, const int32_t* codes, double* sums) {
  const int64_t channels = b.g.channels;
  if (channels_innermost(b.g)) {
    for (int k = 0; k < kSuperNeurons; ++k) {
      accumulate(b, sums + k * channels, [codes, k](int64_t i) { return static_cast<double>(codes[i] >> k & 1); });
    }
    return;
  }
  runs(b, [&](int64_t first, int64_t count, int64_t channel) {
    int32_t counts[kSuperNeurons];
    count_spikes(codes + first, count, counts);
    for (int k = 0; k < kSuperNeurons; ++k) sums[k * channels + channel] += counts[k];
  });
}

template <class scalar, class real>
void encode(const EncodeCall& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const bool is_short = g.T == kShort && sizeof(real) == 4;
  const int64_t columns = kForwardBlock, kept = is_short ? kShort : 1;
  Workspace<real> workspace(2 * kSuperNeurons + kept, columns);
  Workspace<int32_t> code_space(kept, columns);
  real* states = workspace.take(2 * kSuperNeurons);
  real* x_buffer = workspace.take(kept);
  int32_t* codes = code_space.take(kept);

  blocks_of_slabs(g, begin, end, [&](int64_t slab, const Block& block) {
    double* sums = call.sums + slab * kSuperNeurons * g.channels;
    const int64_t n = block.size;
    const auto store = [&](int64_t t, const int32_t* row) {
      block.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
        store_codes(row + first, call.codes + offset, count);
      });
      add_counts(block, row, sums);
    };
    if constexpr (sizeof(real) == 4) {
      if (is_short) {
        const StepRows<scalar, real> x(call.x, block, x_buffer, columns);
        std::memset(codes, 0, kShort * columns * sizeof(int32_t));
        for_each_member<real>(call.neurons, [&](int k, auto loops) {
          const MemberSettings<real> s(call.neurons.o[k]);
          loops.template encode_all<kShort>(s.constants, s.settings, x.data, x.stride, codes, columns, 1 << k, n);
        });
        for (int t = 0; t < kShort; ++t) store(t, codes + t * columns);
        return;
      }
    }
    for_each_member<real>(call.neurons, [&](int k, auto loops) {
      const MemberSettings<real> s(call.neurons.o[k]);
      const State<real> zero = loops.zero_state(s.settings, s.constants);
      for (int64_t i = 0; i < n; ++i) {
        states[2 * k * columns + i] = zero.v;
        states[(2 * k + 1) * columns + i] = zero.adapt;
      }
    });
    for (int64_t t = 0; t < g.T; ++t) {
      const real* x = Rows<scalar, real>::load(call.x, block, t, x_buffer);
      std::memset(codes, 0, columns * sizeof(int32_t));
      for_each_member<real>(call.neurons, [&](int k, auto loops) {
        const MemberSettings<real> s(call.neurons.o[k]);
        loops.encode(s.constants, s.settings, x, states + 2 * k * columns, states + (2 * k + 1) * columns, codes,
                     1 << k, n);
      });
      store(t, codes);
    }
  });
}

template <class real>
STDANO_LOOP void decode_loop(const uint8_t* __restrict codes, const real* __restrict table, int64_t columns,
                             real* __restrict y, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    const int32_t code = codes[i];
    const real lif = (code & 1) != 0 ? table[columns + i] : real(0);
    const real llif = (code & 2) != 0 ? table[2 * columns + i] : real(0);
    const real slif = (code & 4) != 0 ? table[3 * columns + i] : real(0);
    y[i] = ((table[i] + lif) + llif) + slif;
  }
}

template <class scalar, class real>
void decode(const DecodeCall& call, int64_t begin, int64_t end) {
  const int64_t columns = kForwardBlock;
  Workspace<real> workspace(kDecodeRows + 1, columns);
  real *table = workspace.take(kDecodeRows), *buffer = workspace.take();
  for (int64_t index = begin; index < end; ++index) {
    const Block block = forward_block(call.g, index);
    expand_table(block, call.table, kDecodeRows, table, columns);
    for (int64_t t = 0; t < call.g.T; ++t) {
      real* y = Rows<scalar, real>::target(call.y, block, t, buffer);
      block.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
        decode_loop(call.codes + offset, table + first, columns, y + first, count);
      });
      Rows<scalar, real>::store(call.y, block, t, y);
    }
  }
}

// Sums over a run in a fixed number of partial ones: in float there are at most 32 terms to one.
template <class real>
STDANO_LOOP void sum_by_code(const uint8_t* __restrict codes, const real* __restrict g, int64_t n, double* sums) {
  constexpr int lanes = 32;
  real lane[kSuperSums][lanes] = {};
  for (int64_t i = 0; i < n; i += lanes) {
    const int count = n - i < lanes ? static_cast<int>(n - i) : lanes;
    STDANO_VECTORIZE
    for (int j = 0; j < count; ++j) {
      const int32_t code = codes[i + j];
      const real gy = g[i + j];
      lane[0][j] += gy;
      lane[1][j] += (code & 1) != 0 ? gy : real(0);
      lane[2][j] += (code & 2) != 0 ? gy : real(0);
      lane[3][j] += (code & 4) != 0 ? gy : real(0);
    }
  }
  for (int k = 0; k < kSuperSums; ++k) {
    for (int j = 0; j < lanes; ++j) sums[k] += lane[k][j];
  }
}

template <class scalar, class real>
void super_sums(const SuperSumsCall& call, int64_t begin, int64_t end) {
  const int64_t columns = kForwardBlock, channels = call.g.channels;
  Workspace<real> workspace(1, columns);
  Workspace<uint8_t> code_space(1, columns);
  real* buffer = workspace.take();
  uint8_t* code_buffer = code_space.take();
  blocks_of_slabs(call.g, begin, end, [&](int64_t slab, const Block& block) {
    double* sums = call.sums + slab * kSuperSums * channels;
    for (int64_t t = 0; t < call.g.T; ++t) {
      const real* g = Rows<scalar, real>::load(call.grad, block, t, buffer);
      const uint8_t* codes = Rows<uint8_t, uint8_t>::load(call.codes, block, t, code_buffer);
      if (channels_innermost(call.g)) {
        accumulate(block, sums, [=](int64_t i) { return static_cast<double>(g[i]); });
        for (int k = 0; k < kSuperNeurons; ++k) {
          accumulate(block, sums + (k + 1) * channels,
                     [=](int64_t i) { return (codes[i] >> k & 1) != 0 ? static_cast<double>(g[i]) : 0.0; });
        }
        continue;
      }
      runs(block, [&](int64_t first, int64_t count, int64_t channel) {
        double of_run[kSuperSums] = {};
        sum_by_code(codes + first, g + first, count, of_run);
        for (int k = 0; k < kSuperSums; ++k) sums[k * channels + channel] += of_run[k];
      });
    }
  });
}

// Backward keeps all steps of a neuron, however many they are, so there are no checkpoints.
inline int64_t super_block(const Geometry& g) {
  const int64_t size = kBackwardWork / (g.T > 0 ? g.T : 1);
  return size < 64 ? 64 : size < 512 ? size : 512;
}

inline int64_t count_super_blocks(const Geometry& g) { return (g.N + super_block(g) - 1) / super_block(g); }

template <class scalar, class real>
void super_backward(const SuperBackwardCall& call, int64_t begin, int64_t end) {
  constexpr int most_kept = 4;
  const Geometry& g = call.g;
  const int64_t columns = super_block(g), T = g.T;
  Workspace<real> workspace(kSuperBackwardRows + 7 + T * (most_kept + 4), columns);
  real *table = workspace.take(kSuperBackwardRows), *x_rows = workspace.take(T), *gy_rows = workspace.take(T);
  real *gx = workspace.take(T), *v_kept = workspace.take(T), *kept = workspace.take(T * most_kept);
  real *v = workspace.take(), *adapt = workspace.take(), *gv = workspace.take(), *gadapt = workspace.take();
  real *u = workspace.take(), *gs = workspace.take(), *gx_row = workspace.take();

  for (int64_t index = begin; index < end; ++index) {
    const int64_t m = index * columns;
    const int64_t n = g.N - m < columns ? g.N - m : columns;
    const Block block{g, m, n};
    expand_table(block, call.table, kSuperBackwardRows, table, columns);
    const StepRows<scalar, real> x(call.x, block, x_rows, columns), gy(call.grad, block, gy_rows, columns);
    std::memset(gx, 0, T * columns * sizeof(real));
    for_each_member<real>(call.neurons, [&](int k, auto loops) {
      using S = decltype(loops);
      using L = typename S::L;
      const Options& o = call.neurons.o[k];
      const MemberSettings<real> s(o);
      const real* of_member = table + 3 * k * columns;
      if constexpr (sizeof(real) == 4) {
        if (T == kShort) {
          return with_surrogate(o.surrogate, [&](auto kind) {
            loops.template adjoint_all<decltype(kind)::value, kShort>(s.constants, s.settings, real(o.alpha), x.data,
                                                                      x.stride, gy.data, gy.stride, of_member, columns,
                                                                      gx, n);
          });
        }
      }
      const typename L::View c{s.constants, nullptr, 0};
      L::initialize(c, s.settings, nullptr, nullptr, v, adapt, n);
      for (int64_t t = 0; t < T; ++t) {
        L::template advance<true>(c, s.settings, x.data + t * x.stride, v, adapt, nullptr,
                                  kept + t * most_kept * columns, v_kept + t * columns, columns, n);
      }
      for (int64_t i = 0; i < n; ++i) gv[i] = gadapt[i] = 0;
      for (int64_t t = T - 1; t >= 0; --t) {
        const real* keep = kept + t * most_kept * columns;
        L::restore_u(c, keep, u, columns, n);
        S::spike_gradients(of_member, columns, u, gy.data + t * gy.stride, gs, n);
        surrogate<SurrogateValue::derivative>(o.surrogate, real(o.alpha), u, u, n);
        L::template adjoint<false>(c, s.settings, x.data + t * x.stride, v_kept + t * columns, keep, nullptr, u, gs,
                                   gv, gadapt, gx_row, nullptr, nullptr, columns, n);
        for (int64_t i = 0; i < n; ++i) gx[t * columns + i] += gx_row[i];
      }
    });
    for (int64_t t = 0; t < T; ++t) Rows<scalar, real>::write(call.grad_x, block, t, gx + t * columns);
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
