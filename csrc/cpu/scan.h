// The forward and the backward pass of a neuron over blocks.
#pragma once

#include "walk.h"

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

// Whether constants may differ between neurons.
template <class Kernels>
bool needs_tables(const Member<Kernels>& neuron) {
  for (const ConstantValue& c : neuron.constants) {
    if (c.data) return true;
  }
  return false;
}

// The neurons' input: x, or x mapped into `buffer`.
template <class scalar, class real>
StepRows<const real> input_rows(const void* x, const ChannelMap<real>& map, const Block& b, int64_t first, int64_t count,
                                real* buffer, int64_t columns) {
  const StepRows<const real> in = step_rows<scalar, real>(x, b, first, count, buffer, columns);
  if (!map) return in;
  for (int64_t t = 0; t < count; ++t) map.apply(b, in.data + t * in.stride, buffer + t * columns);
  return {buffer, columns};
}

template <class scalar, class real>
class ForwardPass {
 public:
  explicit ForwardPass(const ForwardCall<NeuronKernels>& call)
      : call_(call),
        k_(*call.neuron.kernels),
        steps_(recomputed_steps(call.g)),
        workspace_(Walk<real>::rows(k_, 1) + ChannelMap<real>::rows + 2 * steps_, kForwardBlock),
        walk_(call.neuron, needs_tables(call.neuron), 1, kForwardBlock, workspace_, call.constant),
        map_(call.affine, workspace_, kForwardBlock),
        x_buffer_(workspace_.take(steps_)),
        s_buffer_(workspace_.take(steps_)) {}

  // A block of at most kForwardBlock neurons.
  void run(const Block& block) {
    const Geometry& g = call_.g;
    const int64_t m = block.begin;
    const bool single = !call_.sequences.empty();
    const real* from[kMostStates];
    real* to[kMostStates];
    walk_.prepare(block);
    map_.prepare(block);
    if (call_.state0.empty()) {
      walk_.start_at_rest();
    } else {
      for (int j = 0; j < k_.states; ++j) from[j] = at<real>(call_.state0[j], m);
      walk_.start(from);
    }
    StepRows<const real> x{};
    if (call_.constant) x = {input_rows<scalar, real>(call_.x, map_, block, 0, 1, x_buffer_, kForwardBlock).data, 0};
    for (int64_t first = 0; first < g.T; first += kCheckpointSteps) {
      const int64_t count = g.T - first < kCheckpointSteps ? g.T - first : kCheckpointSteps;
      const bool last = first + count == g.T;
      if (call_.checkpoints && first > 0) {
        for (int j = 0; j < k_.states; ++j) {
          real* row = at<real>(call_.checkpoints, ((first / kCheckpointSteps - 1) * k_.states + j) * g.N + m);
          std::memcpy(row, walk_.state()[j], block.size * sizeof(real));
        }
      }
      if (!call_.constant) x = input_rows<scalar, real>(call_.x, map_, block, first, count, x_buffer_, kForwardBlock);
      const auto spikes = target_rows<scalar, real>(call_.spikes, block, first, s_buffer_, kForwardBlock);
      for (int j = 0; j < k_.states && !call_.state.empty(); ++j) to[j] = at<real>(call_.state[j], m);
      real* const* final_state = last && !call_.state.empty() ? to : nullptr;
      if (single) {
        for (int64_t t = 0; t < count; ++t) {
          const bool ends = last && t == count - 1;
          walk_.advance({x.data + t * x.stride, x.stride}, {spikes.data + t * spikes.stride, spikes.stride}, 1,
                        ends ? final_state : nullptr, false, true);
          for (size_t q = 0; q < call_.sequences.size(); ++q) {
            Memory<scalar, real>::write(call_.sequences[q], block, first + t, walk_.state()[call_.which[q]]);
          }
        }
      } else {
        walk_.advance(x, spikes, count, final_state, last, false);
      }
      store_rows<scalar, real>(call_.spikes, block, first, count, spikes, s_buffer_);
    }
    for (int j = 0; j < k_.states && !call_.state.empty() && g.T == 0; ++j) {
      std::memcpy(at<real>(call_.state[j], m), walk_.state()[j], block.size * sizeof(real));
    }
  }

 private:
  const ForwardCall<NeuronKernels>& call_;
  const NeuronKernels& k_;
  int64_t steps_;
  Workspace<real> workspace_;
  Walk<real> walk_;
  ChannelMap<real> map_;
  real *x_buffer_, *s_buffer_;
};

template <class scalar, class real>
void forward(const ForwardCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  ForwardPass<scalar, real> pass(call);
  for (int64_t index = begin; index < end; ++index) pass.run(block_at(call.g, index, kForwardBlock));
}

template <class scalar, class real>
class BackwardPass {
 public:
  explicit BackwardPass(const BackwardCall<NeuronKernels>& call)
      : call_(call),
        k_(*call.neuron.kernels),
        tables_(needs_tables(call.neuron)),
        columns_(backward_block(call.g)),
        steps_(recomputed_steps(call.g)),
        workspace_(Walk<real>::rows(k_, steps_) + ChannelMap<real>::rows + 3 * steps_ + 2, columns_),
        walk_(call.neuron, tables_, steps_, columns_, workspace_, call.constant),
        map_(call.affine, workspace_, columns_),
        x_buffer_(workspace_.take(steps_)),
        s_buffer_(workspace_.take(steps_)),
        gx_buffer_(workspace_.take(steps_)),
        row_buffer_(workspace_.take()),
        sum_buffer_(workspace_.take()) {}

  // A block of at most backward_block() neurons; `sums` [constants + 2][channels] are added to.
  void run(const Block& block, double* sums) {
    const Geometry& g = call_.g;
    const int64_t m = block.begin, n = block.size;
    const bool extra = !call_.grad_sequences.empty();
    double *shift = sums + k_.constants * g.channels, *scale = shift + g.channels;
    const real *from[kMostStates], *behind[kMostStates];
    walk_.prepare(block);
    map_.prepare(block);
    map_.clear_sums(block);
    for (int j = 0; j < k_.states; ++j) {
      behind[j] = call_.grad_state.empty() ? nullptr : at<real>(call_.grad_state[j], m);
    }
    walk_.start_back(behind);
    StepRows<const real> x{};
    StepRows<real> sum{};
    if (call_.constant) {
      x = {input_rows<scalar, real>(call_.x, map_, block, 0, 1, x_buffer_, columns_).data, 0};
      sum = target_rows<scalar, real>(call_.grad_x, block, 0, sum_buffer_, columns_);
      for (int64_t i = 0; i < n; ++i) sum.data[i] = real(kNothing);
    }
    for (int64_t first = (g.T - 1) / kCheckpointSteps * kCheckpointSteps; g.T > 0 && first >= 0;
         first -= kCheckpointSteps) {
      const int64_t count = g.T - first < kCheckpointSteps ? g.T - first : kCheckpointSteps;
      if (first == 0 && call_.state0.empty()) {
        walk_.start_at_rest();
      } else {
        for (int j = 0; j < k_.states; ++j) {
          from[j] = first == 0 ? at<real>(call_.state0[j], m)
                               : at<real>(call_.checkpoints,
                                          ((first / kCheckpointSteps - 1) * k_.states + j) * g.N + m);
        }
        walk_.start(from);
      }
      if (!call_.constant) x = input_rows<scalar, real>(call_.x, map_, block, first, count, x_buffer_, columns_);
      const auto gs = step_rows<scalar, real>(call_.grad_spikes, block, first, count, s_buffer_, columns_);
      StepRows<real> gx{gx_buffer_, columns_};
      if (!call_.constant) gx = target_rows<scalar, real>(call_.grad_x, block, first, gx_buffer_, columns_);
      walk_.keep(x, gx, count, call_.grad_state.empty() && first + count == g.T, extra);
      walk_.retreat(x, gs, gx, extra, [&](int64_t t, real* const* gradient) {
        for (size_t q = 0; q < call_.which.size(); ++q) {
          if (!call_.grad_sequences[q]) continue;
          const real* more = load_step<scalar, real>(call_.grad_sequences[q], block, first + t, row_buffer_);
          add_to(gradient[call_.which[q]], more, n);
        }
      });
      for (int64_t t = 0; map_ && t < count; ++t) {
        const real* y = load_step<scalar, real>(call_.x, block, call_.constant ? 0 : first + t, row_buffer_);
        map_.adjoint(block, y, gx.data + t * gx.stride, shift, scale);
      }
      if (call_.constant) {
        add_steps(sum.data, gx, count, n);
      } else {
        store_rows<scalar, real>(call_.grad_x, block, first, count, gx, gx_buffer_);
      }
    }
    if (call_.constant) store_rows<scalar, real>(call_.grad_x, block, 0, 1, sum, sum_buffer_);
    for (size_t j = 0; j < call_.grad_state0.size(); ++j) {
      std::memcpy(at<real>(call_.grad_state0[j], m), walk_.gradient()[j], n * sizeof(real));
    }
    if (tables_) {
      real* const* gradients = walk_.finish(call_.state0.empty());
      for (int j = 0; j < k_.constants; ++j) {
        const ConstantValue& c = call_.neuron.constants[j];
        if (c.data && c.per_neuron) std::memcpy(at<real>(call_.grad_constants[j], m), gradients[j], n * sizeof(real));
        if (c.data && !c.per_neuron) add_row(block, gradients[j], sums + j * g.channels);
      }
    }
    if (map_) map_.add_sums(block, shift, scale);
  }

 private:
  const BackwardCall<NeuronKernels>& call_;
  const NeuronKernels& k_;
  bool tables_;
  int64_t columns_, steps_;
  Workspace<real> workspace_;
  Walk<real> walk_;
  ChannelMap<real> map_;
  real *x_buffer_, *s_buffer_, *gx_buffer_, *row_buffer_, *sum_buffer_;
};

template <class scalar, class real>
void backward(const BackwardCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  BackwardPass<scalar, real> pass(call);
  const bool sums = needs_tables(call.neuron) || call.affine;
  const int64_t blocks = count_backward_blocks(call.g), slabs = count_slabs(call.g, sums);
  for (int64_t slab = begin; slab < end; ++slab) {
    double* own = call.sums + slab * (call.neuron.kernels->constants + 2) * call.g.channels;
    for (int64_t index = slab * blocks / slabs; index < (slab + 1) * blocks / slabs; ++index) {
      pass.run(block_at(call.g, index, backward_block(call.g)), own);
    }
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
