// A neuron's way through the time steps of a block, forward and back, by its loops over rows (rows.h).
#pragma once

#include "channels.h"

namespace stdano {
namespace STDANO_ISA {

template <class real>
const Loops<real>& loops_of(const NeuronKernels& kernels) {
  if constexpr (sizeof(real) == 4) return *kernels.of_float;
  if constexpr (sizeof(real) == 8) return *kernels.of_double;
}

// Rows of a workspace as the array of pointers that Rows has.
template <class real>
Array<real*> take_rows(Workspace<real>& workspace, int64_t count) {
  return Array<real*>(count, [&](int64_t) { return workspace.take(); });
}

template <class real>
class Walk {
 public:
  // Most rows that a walk of `steps` steps takes of a workspace.
  static int64_t rows(const NeuronKernels& k, int64_t steps) {
    return 2 * k.constants + 2 * k.derived + 4 * k.states + k.kept + steps * k.states + kept_steps(steps) * k.kept;
  }

  static int64_t kept_steps(int64_t steps) { return steps < kUnit ? kUnit : steps; }

  // `tables`: constants of neurons may differ, and sums for them are taken. `steps` may be kept. `constant`: all
  // steps have one x.
  STDANO_APART Walk(const Member<NeuronKernels>& neuron, bool tables, int64_t steps, int64_t columns,
                    Workspace<real>& workspace, bool constant = false)
      : neuron_(neuron),
        k_(*neuron.kernels),
        loops_(loops_of<real>(k_)),
        tables_(tables),
        same_(constant && loops_.forward[same_unit]),
        constants_(take_rows(workspace, k_.constants)),
        grad_constants_(take_rows(workspace, k_.constants)),
        derived_(take_rows(workspace, k_.derived)),
        sums_(take_rows(workspace, k_.derived)),
        rest_(take_rows(workspace, k_.states)),
        state_(take_rows(workspace, k_.states)),
        gradient_(take_rows(workspace, k_.states)),
        zero_(take_rows(workspace, k_.states)),
        rest_kept_(take_rows(workspace, k_.kept)),
        kept_states_(take_rows(workspace, steps * k_.states)),
        kept_(take_rows(workspace, kept_steps(steps) * k_.kept)),
        units_(steps, [](int64_t) { return Unit{}; }) {
    for (real* row : zero_) fill(row, real(0), columns);
    r_ = {};
    r_.alpha = real(neuron.alpha);
    r_.constants = constants_.data();
    r_.derived = derived_.data();
    r_.sums = sums_.data();
    r_.grad_constants = grad_constants_.data();
    for (int j = 0; j < k_.constants; ++j) fill(constants_[j], real(neuron.constants[j].value), columns);
    if (!tables) derive(columns);
  }

  // Before the steps of a block.
  void prepare(const Block& b) {
    r_.n = b.size;
    if (!tables_) return;
    for (int j = 0; j < k_.constants; ++j) {
      const ConstantValue& c = neuron_.constants[j];
      if (!c.data) continue;
      const real* values = static_cast<const real*>(c.data);
      if (c.per_neuron) {
        std::memcpy(constants_[j], values + b.begin, b.size * sizeof(real));
      } else {
        expand(b, values, constants_[j]);
      }
    }
    derive(b.size);
    for (real* row : sums_) fill(row, real(0), b.size);
  }

  // The state in front of the first step: tensors, a checkpoint [states][N], or at rest.
  void start_at_rest() { start(rest_.data(), true); }
  void start(const real* const* state, bool resting = false) {
    std::memcpy(before_, state, k_.states * sizeof(*state));
    resting_ = resting && !tables_;
  }

  // Steps from here on. The last state goes to `final_state` where that is given; `closed`: it is not wanted at all.
  // `single`: the state is wanted after every step.
  void advance(StepRows<const real> x, StepRows<real> out, int64_t steps, real* const* final_state, bool closed,
               bool single) {
    walk(x, out, steps, final_state, false, closed && !final_state, single);
  }

  // The same as retreat() needs it, which does not need what the last steps make of the state. `out` is written to.
  // `closed`: no gradient comes from behind them.
  void keep(StepRows<const real> x, StepRows<real> out, int64_t steps, bool closed, bool single) {
    walk(x, out, steps, nullptr, true, closed, single);
  }

  // The gradient behind the last step: tensors, each of which may be missing.
  void start_back(const real* const* gradient) {
    for (int j = 0; j < k_.states; ++j) after_[j] = gradient[j] ? gradient[j] : zero_[j];
  }

  // The adjoint of the steps that advance() has just kept. add(t, row) adds what else has a gradient of the state after
  // step t, where `extra` is set.
  template <class F>
  void retreat(StepRows<const real> x, StepRows<const real> gs, StepRows<real> out, bool extra, F add) {
    for (int64_t index = count_ - 1; index >= 0; --index) {
      const Unit& now = units_[index];
      if (extra) {
        for (int j = 0; j < k_.states; ++j) {
          if (after_[j] != gradient_[j]) std::memcpy(gradient_[j], after_[j], r_.n * sizeof(real));
          after_[j] = gradient_[j];
        }
        add(now.first, gradient_.data());
      }
      r_.before = now.before;
      r_.kept = now.kept;
      r_.x = x.data + now.first * x.stride;
      r_.x_stride = x.stride;
      r_.gs = gs.data + now.first * gs.stride;
      r_.gs_stride = gs.stride;
      r_.out = out.data + now.first * out.stride;
      r_.out_stride = out.stride;
      r_.grad_after = after_;
      r_.grad_before = gradient_.data();
      (tables_ ? loops_.backward_tables : loops_.backward[now.kind])(r_);
      for (int j = 0; j < k_.states; ++j) after_[j] = gradient_[j];
    }
  }

  // Behind the steps of a block: the gradient of the state in front of them, and of the constants.
  const real* const* gradient() const { return after_; }
  const real* const* state() const { return before_; }
  real* const* finish(bool from_rest) {
    loops_.finish(r_);
    for (int j = 0; from_rest && j < k_.states; ++j) {
      if (k_.rest[j].constant < 0) continue;
      add_to(grad_constants_[k_.rest[j].constant], after_[j], r_.n);
    }
    return grad_constants_.data();
  }

 private:
  STDANO_APART void walk(StepRows<const real> x, StepRows<real> out, int64_t steps, real* const* final_state, bool keep,
            bool closed_end, bool single) {
    count_ = 0;
    for (int64_t t = 0; t < steps;) {
      const bool several = !single && !tables_ && loops_.forward[unit] && steps - t >= kUnit;
      const int64_t size = several ? kUnit : 1;
      const bool last = t + size >= steps;
      const bool ends = last && closed_end && !tables_ && !single && (several || !loops_.forward[unit]);
      Unit& now = units_[count_];
      now.first = t;
      now.kind = ends ? closed : several ? unit : one;
      if (several && same_) now.kind = ends ? same_closed : same_unit;
      for (int j = 0; j < k_.states; ++j) now.before[j] = before_[j];
      now.kept = rest_kept_.data();
      r_.before = now.before;
      if (k_.kept > 0 && !(several && same_) && !(resting_ && !loops_.early_takes_x)) {
        now.kept = kept_.data() + (keep ? t * k_.kept : 0);
        for (int64_t i = 0; i < size - (ends && !loops_.last_needs_early); ++i) {
          r_.x = x.data + (t + i) * x.stride;
          r_.kept = now.kept + i * k_.kept;
          (tables_ ? loops_.early_tables : loops_.early)(r_);
        }
      }
      resting_ = false;
      r_.kept = now.kept;
      r_.x = x.data + t * x.stride;
      r_.x_stride = x.stride;
      r_.out = out.data + t * out.stride;
      r_.out_stride = out.stride;
      if (keep && last) {
        ++count_;
        break;
      }
      r_.after = last && final_state ? final_state : keep ? kept_states_.data() + count_ * k_.states : state_.data();
      (tables_ ? loops_.forward_tables : loops_.forward[now.kind])(r_);
      for (int j = 0; j < k_.states; ++j) before_[j] = r_.after[j];
      count_ += keep;
      t += size;
    }
  }

  struct Unit {
    int64_t first;
    LoopKind kind;
    const real* before[kMostStates];
    real* const* kept;
  };

  static void fill(real* row, real value, int64_t n) {
    for (int64_t i = 0; i < n; ++i) row[i] = value;
  }

  // What constants make for the first n neurons: `derived`, and where the states begin. Without tables the first
  // neuron speaks for all.
  STDANO_APART void derive(int64_t n) {
    const int64_t block = r_.n;
    r_.n = tables_ ? n : 1;
    loops_.derive(r_);
    for (int j = 0; j < k_.states; ++j) {
      const Rest& rest = k_.rest[j];
      if (rest.constant < 0) {
        fill(rest_[j], real(rest.value), n);
      } else {
        std::memcpy(rest_[j], constants_[rest.constant], n * sizeof(real));
      }
    }
    if (k_.kept > 0 && !tables_ && !loops_.early_takes_x) {
      r_.before = rest_.data();
      r_.kept = rest_kept_.data();
      loops_.early(r_);
      for (real* row : rest_kept_) fill(row, row[0], n);
    }
    r_.n = block;
  }

  const Member<NeuronKernels>& neuron_;
  const NeuronKernels& k_;
  const Loops<real>& loops_;
  bool tables_, same_;
  bool resting_ = false;
  Rows<real> r_;
  Array<real*> constants_, grad_constants_, derived_, sums_, rest_, state_, gradient_, zero_, rest_kept_;
  Array<real*> kept_states_, kept_;
  const real *before_[kMostStates], *after_[kMostStates];
  Array<Unit> units_;
  int64_t count_ = 0;  // of them
};

}  // namespace STDANO_ISA
}  // namespace stdano
