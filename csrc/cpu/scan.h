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
void forward(const ForwardCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const NeuronKernels& k = *call.neuron.kernels;
  const int64_t columns = forward_block(g), steps = recomputed_steps(g);
  Workspace<real> workspace(Walk<real>::rows(k, 1) + ChannelMap<real>::rows + 2 * steps, columns);
  Walk<real> walk(call.neuron, needs_tables(call.neuron), 1, columns, workspace);
  ChannelMap<real> map(call.affine, workspace, columns);
  real *x_buffer = workspace.take(steps), *s_buffer = workspace.take(steps);
  const bool single = !call.sequences.empty();
  const real* from[kMostStates];
  real* to[kMostStates];

  for (int64_t index = begin; index < end; ++index) {
    const Block block = block_at(g, index, columns);
    const int64_t m = block.begin;
    walk.prepare(block);
    map.prepare(block);
    if (call.state0.empty()) {
      walk.start_at_rest();
    } else {
      for (int j = 0; j < k.states; ++j) from[j] = at<real>(call.state0[j], m);
      walk.start(from);
    }
    for (int64_t first = 0; first < g.T; first += kCheckpointSteps) {
      const int64_t count = g.T - first < kCheckpointSteps ? g.T - first : kCheckpointSteps;
      const bool last = first + count == g.T;
      if (call.checkpoints && first > 0) {
        for (int j = 0; j < k.states; ++j) {
          real* row = at<real>(call.checkpoints, ((first / kCheckpointSteps - 1) * k.states + j) * g.N + m);
          std::memcpy(row, walk.state()[j], block.size * sizeof(real));
        }
      }
      const auto x = input_rows<scalar, real>(call.x, map, block, first, count, x_buffer, columns);
      const auto spikes = target_rows<scalar, real>(call.spikes, block, first, s_buffer, columns);
      for (int j = 0; j < k.states && !call.state.empty(); ++j) to[j] = at<real>(call.state[j], m);
      real* const* final_state = last && !call.state.empty() ? to : nullptr;
      if (single) {
        for (int64_t t = 0; t < count; ++t) {
          const bool ends = last && t == count - 1;
          walk.advance({x.data + t * x.stride, x.stride}, {spikes.data + t * spikes.stride, spikes.stride}, 1,
                       ends ? final_state : nullptr, false, true);
          for (size_t q = 0; q < call.sequences.size(); ++q) {
            Memory<scalar, real>::write(call.sequences[q], block, first + t, walk.state()[call.which[q]]);
          }
        }
      } else {
        walk.advance(x, spikes, count, final_state, last, false);
      }
      store_rows<scalar, real>(call.spikes, block, first, count, spikes, s_buffer);
    }
    for (int j = 0; j < k.states && !call.state.empty() && g.T == 0; ++j) {
      std::memcpy(at<real>(call.state[j], m), walk.state()[j], block.size * sizeof(real));
    }
  }
}

template <class scalar, class real>
void backward(const BackwardCall<NeuronKernels>& call, int64_t begin, int64_t end) {
  const Geometry& g = call.g;
  const NeuronKernels& k = *call.neuron.kernels;
  const bool tables = needs_tables(call.neuron), extra = !call.grad_sequences.empty();
  const int64_t columns = backward_block(g), steps = recomputed_steps(g);
  const int64_t blocks = count_backward_blocks(g), slabs = count_slabs(g, tables || call.affine);
  Workspace<real> workspace(Walk<real>::rows(k, steps) + ChannelMap<real>::rows + 3 * steps + 1, columns);
  Walk<real> walk(call.neuron, tables, steps, columns, workspace);
  ChannelMap<real> map(call.affine, workspace, columns);
  real *x_buffer = workspace.take(steps), *s_buffer = workspace.take(steps), *gx_buffer = workspace.take(steps);
  real* row_buffer = workspace.take();
  const real *from[kMostStates], *behind[kMostStates];

  for (int64_t slab = begin; slab < end; ++slab) {
    double* sums = call.sums + slab * (k.constants + 2) * g.channels;
    for (int64_t index = slab * blocks / slabs; index < (slab + 1) * blocks / slabs; ++index) {
      const Block block = block_at(g, index, columns);
      const int64_t m = block.begin, n = block.size;
      walk.prepare(block);
      map.prepare(block);
      map.clear_sums();
      for (int j = 0; j < k.states; ++j) {
        behind[j] = call.grad_state.empty() ? nullptr : at<real>(call.grad_state[j], m);
      }
      walk.start_back(behind);
      for (int64_t first = (g.T - 1) / kCheckpointSteps * kCheckpointSteps; g.T > 0 && first >= 0;
           first -= kCheckpointSteps) {
        const int64_t count = g.T - first < kCheckpointSteps ? g.T - first : kCheckpointSteps;
        if (first == 0 && call.state0.empty()) {
          walk.start_at_rest();
        } else {
          for (int j = 0; j < k.states; ++j) {
            from[j] = first == 0 ? at<real>(call.state0[j], m)
                                 : at<real>(call.checkpoints,
                                            ((first / kCheckpointSteps - 1) * k.states + j) * g.N + m);
          }
          walk.start(from);
        }
        const auto x = input_rows<scalar, real>(call.x, map, block, first, count, x_buffer, columns);
        const auto gs = step_rows<scalar, real>(call.grad_spikes, block, first, count, s_buffer, columns);
        const auto gx = target_rows<scalar, real>(call.grad_x, block, first, gx_buffer, columns);
        walk.keep(x, gx, count, call.grad_state.empty() && first + count == g.T, extra);
        walk.retreat(x, gs, gx, extra, [&](int64_t t, real* const* gradient) {
          for (size_t q = 0; q < call.which.size(); ++q) {
            if (!call.grad_sequences[q]) continue;
            const real* more = load_step<scalar, real>(call.grad_sequences[q], block, first + t, row_buffer);
            add_to(gradient[call.which[q]], more, n);
          }
        });
        for (int64_t t = 0; map && t < count; ++t) {
          map.adjoint(block, load_step<scalar, real>(call.x, block, first + t, row_buffer), gx.data + t * gx.stride);
        }
        store_rows<scalar, real>(call.grad_x, block, first, count, gx, gx_buffer);
      }
      for (size_t j = 0; j < call.grad_state0.size(); ++j) {
        std::memcpy(at<real>(call.grad_state0[j], m), walk.gradient()[j], n * sizeof(real));
      }
      if (tables) {
        real* const* gradients = walk.finish(call.state0.empty());
        for (int j = 0; j < k.constants; ++j) {
          const ConstantValue& c = call.neuron.constants[j];
          if (c.data && c.per_neuron) std::memcpy(at<real>(call.grad_constants[j], m), gradients[j], n * sizeof(real));
          if (c.data && !c.per_neuron) add_row(block, gradients[j], sums + j * g.channels);
        }
      }
      if (map) map.add_sums(block, sums + k.constants * g.channels, sums + (k.constants + 1) * g.channels);
    }
  }
}

}  // namespace STDANO_ISA
}  // namespace stdano
