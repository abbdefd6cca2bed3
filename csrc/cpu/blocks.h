// The CPU kernels: loops over time and over blocks of neurons around the steps of ../neurons.h. Inside a block
// the neurons are the inner loop, in plain code that the compiler turns into vector instructions; the state of a
// block stays in the first-level cache over all time steps.
//
// Compiled once an instruction set, in a namespace of its own (see target.h).
#pragma once

#include <cstdlib>

#include "../half.h"
#include "../neurons.h"
#include "../surrogates.h"
#include "kernels.h"

namespace stdano {
namespace STDANO_ISA {

// The iterations of the loop that follows do not touch each other's memory. Not `omp simd`: that gives the structs
// inside a loop's body memory of their own, and g++ then vectorises none of the loops below.
// A function around one such loop. Inlined into its caller, g++ vectorises some of them no more.
#define STDANO_LOOP __attribute__((noinline))
#if defined(__clang__)
#define STDANO_VECTORIZE _Pragma("clang loop vectorize(assume_safety)")
#else
#define STDANO_VECTORIZE _Pragma("GCC ivdep")
#endif

// Forward keeps nothing but the state, so its blocks are a page long for any T. Backward keeps up to five numbers
// for each neuron and recomputed step; the product of the two stays within the second-level cache. Measured on two
// AVX-512 cores: half or twice these sizes cost 5 to 20 %, a forward block of 128 neurons at T = 64 costs 70 %.
constexpr int64_t kForwardBlock = 1024;
constexpr int64_t kBackwardWork = 4096;
constexpr int64_t kSlabs = 64;

inline int64_t recomputed_steps(const Geometry& g) { return g.T < kCheckpointSteps ? g.T : kCheckpointSteps; }

inline int64_t backward_block(const Geometry& g) {
  const int64_t size = kBackwardWork / (g.T > 0 ? recomputed_steps(g) : 1);
  return size < 512 ? size : 512;
}

inline int64_t count_forward_blocks(const Geometry& g) { return (g.N + kForwardBlock - 1) / kForwardBlock; }

inline int64_t count_backward_blocks(const Geometry& g) { return (g.N + backward_block(g) - 1) / backward_block(g); }

inline int64_t count_slabs(const Geometry& g, bool by_channel) {
  const int64_t blocks = count_backward_blocks(g);
  return by_channel && blocks > kSlabs ? kSlabs : blocks;
}

// A piece of memory that grows by rows; freed with its thread's work.
template <class real>
class Workspace {
 public:
  explicit Workspace(int64_t rows, int64_t columns) : columns_(columns) {
    data_ = static_cast<real*>(std::aligned_alloc(64, ((rows * columns * sizeof(real)) + 63) / 64 * 64));
  }
  ~Workspace() { std::free(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  real* take(int64_t rows = 1) {
    real* p = data_ + used_ * columns_;
    used_ += rows;
    return p;
  }

 private:
  real* data_;
  int64_t columns_, used_ = 0;
};

// The neurons [begin, begin + size) of a call.
struct Block {
  const Geometry& g;
  int64_t begin, size;

  // Calls f(memory offset, first neuron of the block, count) for each contiguous piece of time step t.
  template <class F>
  STDANO_INLINE void pieces(int64_t t, F f) const {
    for (int64_t m = begin; m < begin + size;) {
      const int64_t outer = m / g.inner;
      const int64_t inner = m - outer * g.inner;
      const int64_t left = begin + size - m;
      const int64_t count = g.inner - inner < left ? g.inner - inner : left;
      f((outer * g.T + t) * g.inner + inner, m - begin, count);
      m += count;
    }
  }
  bool contiguous() const { return begin / g.inner == (begin + size - 1) / g.inner; }
  int64_t offset(int64_t t) const {
    const int64_t outer = begin / g.inner;
    return (outer * g.T + t) * g.inner + begin - outer * g.inner;
  }
};

// Reads and writes one time step of a tensor in x's layout. Memory of the right type is used where it lies.
template <class scalar, class real>
struct Rows {
  static const real* load(const void* base, const Block& b, int64_t t, real* buffer) {
    const scalar* from = static_cast<const scalar*>(base);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      const scalar* __restrict in = from + offset;
      real* __restrict out = buffer + first;
      STDANO_VECTORIZE
      for (int64_t i = 0; i < count; ++i) out[i] = convert(in[i], real());
    });
    return buffer;
  }
  static real* target(void*, const Block&, int64_t, real* buffer) { return buffer; }
  static void store(void* base, const Block& b, int64_t t, const real* buffer) {
    scalar* to = static_cast<scalar*>(base);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      const real* __restrict in = buffer + first;
      scalar* __restrict out = to + offset;
      STDANO_VECTORIZE
      for (int64_t i = 0; i < count; ++i) out[i] = convert(in[i], scalar());
    });
  }
};

template <class real>
struct Rows<real, real> {
  static const real* load(const void* base, const Block& b, int64_t t, real* buffer) {
    const real* from = static_cast<const real*>(base);
    if (b.contiguous()) return from + b.offset(t);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      std::memcpy(buffer + first, from + offset, count * sizeof(real));
    });
    return buffer;
  }
  static real* target(void* base, const Block& b, int64_t t, real* buffer) {
    return b.contiguous() ? static_cast<real*>(base) + b.offset(t) : buffer;
  }
  static void store(void* base, const Block& b, int64_t t, const real* buffer) {
    if (b.contiguous()) return;  // target() was the memory itself
    real* to = static_cast<real*>(base);
    b.pieces(t, [&](int64_t offset, int64_t first, int64_t count) {
      std::memcpy(to + offset, buffer + first, count * sizeof(real));
    });
  }
};

// The constants of a block's neurons: the same for all, or a table of one row a constant.
template <class real, bool by_channel>
class BlockConstants {
 public:
  static constexpr int64_t rows = by_channel ? 5 : 0;

  BlockConstants(const Options& o, const Settings<real>& settings, const void* tau, const void* threshold,
                 Workspace<real>& workspace, int64_t columns)
      : settings_(settings),
        tau_(static_cast<const real*>(tau)),
        threshold_(static_cast<const real*>(threshold)),
        uniform_(make_constants(settings, real(o.tau), real(o.threshold))),
        table_(workspace.take(rows)),
        columns_(columns) {}

  void prepare(const Block& b) {
    if (!by_channel) return;
    for (int64_t i = 0; i < b.size; ++i) {
      const int64_t channel = (b.begin + i) / b.g.channel_stride % b.g.channels;
      const real tau = tau_ ? tau_[channel] : uniform_.tau;
      table_[i] = limited_tau(tau);
      table_[4 * columns_ + i] = threshold_ ? threshold_[channel] : uniform_.threshold;
    }
    real* __restrict table = table_;
    const Settings<real> settings = settings_;
    const int64_t columns = columns_;
    STDANO_VECTORIZE
    for (int64_t i = 0; i < b.size; ++i) {
      const Constants<real> c = make_constants(settings, table[i], real(0));
      table[1 * columns + i] = c.inverse_tau;
      table[2 * columns + i] = c.decay;
      table[3 * columns + i] = c.gain;
    }
  }

  // What a loop over the block's neurons holds in registers.
  struct View {
    Constants<real> uniform;
    const real* table;
    int64_t columns;
    STDANO_INLINE Constants<real> at(int64_t i) const {
      // Spelled out: g++ does not vectorise a loop that copies a struct from memory.
      if (!by_channel) return {uniform.tau, uniform.inverse_tau, uniform.decay, uniform.gain, uniform.threshold};
      return {table[i], table[columns + i], table[2 * columns + i], table[3 * columns + i], table[4 * columns + i]};
    }
  };
  View view() const { return {uniform_, table_, columns_}; }

 private:
  Settings<real> settings_;
  const real *tau_, *threshold_;
  Constants<real> uniform_;
  real* table_;
  int64_t columns_;
};

enum class SurrogateValue { derivative, primitive };

template <SurrogateValue value, Surrogate kind, class real>
STDANO_LOOP void surrogate_loop(real alpha, const real* __restrict u, real* __restrict out, int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) {
    out[i] = value == SurrogateValue::derivative ? surrogate_derivative<kind>(u[i], alpha)
                                                 : surrogate_primitive<kind>(u[i], alpha);
  }
}

template <SurrogateValue value, class real>
void surrogate(int64_t kind, real alpha, const real* u, real* out, int64_t n) {
  with_surrogate(kind, [&](auto chosen) { surrogate_loop<value, decltype(chosen)::value>(alpha, u, out, n); });
}

// One neuron type's loops over a block, at one time step.
template <template <class, bool> class Neuron_, class real, bool soft_reset, bool by_channel>
struct Loops {
  using N = Neuron_<real, soft_reset>;
  using View = typename BlockConstants<real, by_channel>::View;
  static constexpr bool keep_v = N::needs_v || by_channel;

  static STDANO_INLINE State<real> state_at(const real* v, const real* adapt, int64_t i) {
    return {v[i], N::has_adapt ? adapt[i] : real(0)};
  }

  static void initialize(View c, const Settings<real>& p, const real* v0, const real* adapt0, real* __restrict v,
                         real* __restrict adapt, int64_t n) {
    for (int64_t i = 0; i < n; ++i) v[i] = v0 ? v0[i] : p.v_reset;
    if (!N::has_adapt) return;
    for (int64_t i = 0; i < n; ++i) adapt[i] = adapt0 ? adapt0[i] : N::initial_adapt(c.at(i));
  }

  // charge, fire and update with hard spikes; kept (and v_kept) for the adjoint where recompute is set
  template <bool recompute>
  static STDANO_LOOP void advance(View c, Settings<real> p, const real* __restrict x, real* __restrict v, real* __restrict adapt,
                      real* __restrict spikes, real* __restrict kept, real* __restrict v_kept, int64_t stride,
                      int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const State<real> before = state_at(v, adapt, i);
      const Step<real> step = N::charge(p, c.at(i), x[i], before);
      const bool fired = fires(step.u);
      const State<real> after = N::update(p, step, before, fired);
      v[i] = after.v;
      if (N::has_adapt) adapt[i] = after.adapt;
      if (recompute) {
        N::keep(step, kept + i, stride);
        if (keep_v) v_kept[i] = before.v;
      } else {
        spikes[i] = fired ? real(1) : real(0);
      }
    }
  }

  // The same in two halves, with soft spikes in between.
  static STDANO_LOOP void charge(View c, Settings<real> p, const real* __restrict x, const real* __restrict v,
                     const real* __restrict adapt, real* __restrict kept, real* __restrict v_kept,
                     real* __restrict u, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Step<real> step = N::charge(p, c.at(i), x[i], state_at(v, adapt, i));
      N::keep(step, kept + i, stride);
      if (keep_v) v_kept[i] = v[i];
      u[i] = step.u;
    }
  }
  static STDANO_LOOP void update(View c, Settings<real> p, const real* __restrict kept, const real* __restrict spikes,
                     real* __restrict v, real* __restrict adapt, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Step<real> step = N::restore(c.at(i), kept + i, stride);
      const State<real> after = N::update(p, step, state_at(v, adapt, i), spikes[i]);
      v[i] = after.v;
      if (N::has_adapt) adapt[i] = after.adapt;
    }
  }

  // Forward over all steps of a short sequence, whose state then never leaves the registers.
  template <int steps>
  static STDANO_LOOP void advance_all(View c, Settings<real> p, const real* x, const real* v0, const real* adapt0, real* spikes,
                          int64_t time_stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      advance_rest<steps>(c.at(i), p, x + i, spikes + i, time_stride, state_at(v0, adapt0, i));
    }
  }
  template <int steps>
  static STDANO_INLINE void advance_rest(Constants<real> c, Settings<real> p, const real* x, real* spikes,
                                         int64_t time_stride, State<real> before) {
    if constexpr (steps > 0) {
      const Step<real> step = N::charge(p, c, *x, before);
      const bool fired = fires(step.u);
      *spikes = fired ? real(1) : real(0);
      advance_rest<steps - 1>(c, p, x + time_stride, spikes + time_stride, time_stride,
                              N::update(p, step, before, fired));
    }
  }

  // Recomputation and adjoint of a short sequence in one go: forward on the way in, backward on the way out.
  template <Surrogate kind, int steps>
  static STDANO_LOOP void adjoint_all(View c, Settings<real> p, real alpha, const real* x, const real* v0, const real* adapt0,
                          const real* gs, real* gv, real* gadapt, real* gx, int64_t time_stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const State<real> g = adjoint_rest<kind, steps>(c.at(i), p, alpha, x + i, gs + i, gx + i, time_stride,
                                                      state_at(v0, adapt0, i), state_at(gv, gadapt, i));
      gv[i] = g.v;
      if (N::has_adapt) gadapt[i] = g.adapt;
    }
  }
  template <Surrogate kind, int steps>
  static STDANO_INLINE State<real> adjoint_rest(Constants<real> c, Settings<real> p, real alpha, const real* x,
                                                const real* gs, real* gx, int64_t time_stride, State<real> before,
                                                State<real> g) {
    if constexpr (steps > 0) {
      const Step<real> step = N::charge(p, c, *x, before);
      const bool fired = fires(step.u);
      g = adjoint_rest<kind, steps - 1>(c, p, alpha, x + time_stride, gs + time_stride, gx + time_stride, time_stride,
                                        N::update(p, step, before, fired), g);
      const real sigma = surrogate_derivative<kind>(step.u, alpha);
      *gx = N::adjoint(p, c, *x, before.v, step, fired, sigma, *gs, g).x;
    }
    return g;
  }

  static STDANO_LOOP void restore_u(View c, const real* __restrict kept, real* __restrict u, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) u[i] = N::restore(c.at(i), kept + i, stride).u;
  }

  template <bool soft_spike>
  static STDANO_LOOP void adjoint(View c, Settings<real> p, const real* __restrict x, const real* __restrict v_kept,
                      const real* __restrict kept, const real* __restrict spikes, const real* __restrict sigma,
                      const real* __restrict gs, real* __restrict gv, real* __restrict gadapt, real* __restrict gx,
                      real* __restrict gtau, real* __restrict gthreshold, int64_t stride, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      const Constants<real> constants = c.at(i);
      const Step<real> step = N::restore(constants, kept + i, stride);
      State<real> g = state_at(gv, gadapt, i);
      const real v = keep_v ? v_kept[i] : real(0);
      const StepGradient<real> out =
          soft_spike ? N::adjoint(p, constants, x[i], v, step, spikes[i], sigma[i], gs[i], g)
                     : N::adjoint(p, constants, x[i], v, step, fires(step.u), sigma[i], gs[i], g);
      gv[i] = g.v;
      if (N::has_adapt) gadapt[i] = g.adapt;
      gx[i] = out.x;
      if (by_channel) {
        gtau[i] += out.tau;
        gthreshold[i] += out.threshold;
      }
    }
  }
};

}  // namespace STDANO_ISA
}  // namespace stdano
