// The operators on CPU tensors: checks, allocation, and parallel_for around the kernels of this processor's
// instruction set.
#include <string>
#include <tuple>

#include "../tensors.h"
#include "kernels.h"

namespace stdano {
namespace {

struct Level {
  const char* name;
  const Kernels* kernels;
};

std::vector<Level> supported_levels() {
  std::vector<Level> levels;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  levels.push_back({"x86-64-v2", &x86_64_v2::kernels});
  if (v3) levels.push_back({"x86-64-v3", &x86_64_v3::kernels});
  if (v4) levels.push_back({"x86-64-v4", &x86_64_v4::kernels});
#else
  levels.push_back({"generic", &generic::kernels});
#endif
  return levels;
}

Level& current_level() {
  static Level level = supported_levels().back();
  return level;
}

std::string cpu_capability(std::optional<std::string> wanted) {
  if (!wanted.has_value()) return current_level().name;
  std::string names;
  for (const Level& level : supported_levels()) {
    if (*wanted == level.name) {
      current_level() = level;
      return level.name;
    }
    names += std::string(names.empty() ? "" : ", ") + level.name;
  }
  STD_TORCH_CHECK(false, "stdano: cpu_capability must be one of ", names, " on this processor, got ", *wanted);
  return "";
}

// Work for a thread below which starting another one costs more than it saves.
int64_t grain(const Geometry& g, int64_t units) {
  const int64_t total = g.N * g.T;
  return total > 0 ? std::max<int64_t>(1, 32768 * units / total) : 1;
}

Options make_options(Neuron neuron, const Tensor& x, double tau_value, double threshold_value,
                     std::optional<double> v_reset, double rate, double tau_min, bool linear_decay, bool decay_input,
                     int64_t surrogate, double alpha, bool soft_spike, bool detach_reset, bool detach_adapt) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() >= 1, "stdano: x must be a CPU tensor with a time dimension");
  STD_TORCH_CHECK(surrogate >= 0 && surrogate < 6, "stdano: surrogate must be an index from 0 to 5");
  return {neuron,         kernel_dtype(x), !v_reset.has_value(),  linear_decay, decay_input, soft_spike, detach_reset,
          detach_adapt,   surrogate,       v_reset.value_or(0.0), rate,         tau_min,     alpha,      tau_value,
          threshold_value};
}

MaybeTensor state_with_layout(const MaybeTensor& state, const Tensor& like, const char* name) {
  if (!state.has_value()) return std::nullopt;
  return with_layout_of(*state, like, name);
}

// A tensor of one element beside one for each channel: expanded, so that kernels index both alike.
MaybeTensor expand_to(const MaybeTensor& t, int64_t channels) {
  if (!t.has_value() || t->numel() == channels) return t;
  Tensor expanded = torch::stable::new_empty(*t, {channels}, t->scalar_type());
  torch::stable::copy_(expanded, *t);
  return expanded;
}

using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

template <Neuron neuron>
Five forward(Tensor x, MaybeTensor v, MaybeTensor adapt, MaybeTensor tau, MaybeTensor v_threshold, double tau_value,
             double v_threshold_value, std::optional<double> v_reset, double rate, double tau_min, bool linear_decay,
             bool decay_input, int64_t surrogate, double alpha, bool soft_spike, bool detach_reset, bool detach_adapt,
             bool save_checkpoints, bool return_state, bool return_v_seq) {
  constexpr bool has_adapt = neuron != Neuron::lif;
  ForwardCall call{};
  call.o = make_options(neuron, x, tau_value, v_threshold_value, v_reset, rate, tau_min, linear_decay, decay_input,
                        surrogate, alpha, soft_spike, detach_reset, detach_adapt);
  const int64_t channels = count_channels(x, tau, v_threshold);
  const ScalarType real = compute_dtype(x);
  x = dense(x);
  call.g = make_geometry(x, channels);
  tau = expand_to(tau, call.g.channels);
  v_threshold = expand_to(v_threshold, call.g.channels);

  const bool needs_layout = return_state || v.has_value() || adapt.has_value();
  const Tensor layout = needs_layout ? empty_state(x) : no_tensor(x, real);
  v = state_with_layout(v, layout, "state.v");
  adapt = state_with_layout(adapt, layout, has_adapt ? (neuron == Neuron::llif ? "state.theta" : "state.p") : "adapt");

  Tensor spikes = torch::stable::empty_like(x);
  Tensor v_out = return_state ? layout : no_tensor(x, real);
  Tensor adapt_out = return_state && has_adapt ? torch::stable::empty_like(layout) : no_tensor(x, real);
  Tensor v_seq = return_v_seq ? torch::stable::empty_like(x) : no_tensor(x, x.scalar_type());
  const int64_t chunks = call.g.T > 0 ? (call.g.T - 1) / kCheckpointSteps : 0;
  Tensor checkpoints = save_checkpoints && chunks > 0
                           ? torch::stable::new_empty(x, {chunks, has_adapt ? 2 : 1, call.g.N}, real)
                           : torch::stable::new_empty(x, {0, has_adapt ? 2 : 1, call.g.N}, real);

  call.x = x.const_data_ptr();
  call.v0 = data(v);
  call.adapt0 = data(adapt);
  call.tau = data(tau);
  call.threshold = data(v_threshold);
  call.spikes = spikes.mutable_data_ptr();
  call.v = return_state ? v_out.mutable_data_ptr() : nullptr;
  call.adapt = return_state && has_adapt ? adapt_out.mutable_data_ptr() : nullptr;
  call.v_seq = return_v_seq ? v_seq.mutable_data_ptr() : nullptr;
  call.checkpoints = save_checkpoints && chunks > 0 ? checkpoints.mutable_data_ptr() : nullptr;

  const Kernels& kernels = *current_level().kernels;
  const int64_t blocks = kernels.blocks(call.g);
  torch::stable::parallel_for(0, blocks, grain(call.g, blocks),
                              [&](int64_t begin, int64_t end) { kernels.forward(call, begin, end); });
  return {spikes, v_out, adapt_out, v_seq, checkpoints};
}

// The sums over slabs, for a tensor of one element also over channels, in a fixed order.
Tensor sum_constants(const MaybeTensor& constant, const std::vector<double>& partial, int64_t slabs, int64_t channels,
                     int64_t which, const Tensor& x) {
  if (!constant.has_value()) return no_tensor(x, compute_dtype(x));
  std::vector<double> sums(channels, 0.0);
  for (int64_t s = 0; s < slabs; ++s) {
    for (int64_t c = 0; c < channels; ++c) sums[c] += partial[(s * 2 + which) * channels + c];
  }
  if (constant->numel() == 1) {
    for (int64_t c = 1; c < channels; ++c) sums[0] += sums[c];
  }
  Tensor out = torch::stable::empty_like(*constant);
  for (int64_t c = 0; c < constant->numel(); ++c) {
    if (compute_dtype(x) == ScalarType::Double) {
      out.mutable_data_ptr<double>()[c] = sums[c];
    } else {
      out.mutable_data_ptr<float>()[c] = static_cast<float>(sums[c]);
    }
  }
  return out;
}

template <Neuron neuron>
Five backward(Tensor grad_spikes, MaybeTensor grad_v, MaybeTensor grad_adapt, MaybeTensor grad_v_seq, Tensor x,
              MaybeTensor v, MaybeTensor adapt, Tensor checkpoints, MaybeTensor tau, MaybeTensor v_threshold,
              double tau_value, double v_threshold_value, std::optional<double> v_reset, double rate, double tau_min,
              bool linear_decay, bool decay_input, int64_t surrogate, double alpha, bool soft_spike, bool detach_reset,
              bool detach_adapt) {
  constexpr bool has_adapt = neuron != Neuron::lif;
  BackwardCall call{};
  call.o = make_options(neuron, x, tau_value, v_threshold_value, v_reset, rate, tau_min, linear_decay, decay_input,
                        surrogate, alpha, soft_spike, detach_reset, detach_adapt);
  const int64_t channels = count_channels(x, tau, v_threshold);
  const ScalarType real = compute_dtype(x);
  x = dense(x);
  call.g = make_geometry(x, channels);
  const MaybeTensor tau_table = expand_to(tau, call.g.channels);
  const MaybeTensor threshold_table = expand_to(v_threshold, call.g.channels);
  grad_spikes = with_layout_of(grad_spikes, x, "grad_spikes");
  if (grad_v_seq.has_value()) grad_v_seq = with_layout_of(*grad_v_seq, x, "grad_v_seq");
  const bool needs_layout = v.has_value() || adapt.has_value() || grad_v.has_value() || grad_adapt.has_value();
  const Tensor layout = needs_layout ? empty_state(x) : no_tensor(x, real);
  v = state_with_layout(v, layout, "state.v");
  adapt = state_with_layout(adapt, layout, "adapt");
  grad_v = state_with_layout(grad_v, layout, "grad_v");
  grad_adapt = state_with_layout(grad_adapt, layout, "grad_adapt");
  const int64_t chunks = call.g.T > 0 ? (call.g.T - 1) / kCheckpointSteps : 0;
  STD_TORCH_CHECK(checkpoints.numel() == chunks * (has_adapt ? 2 : 1) * call.g.N && checkpoints.scalar_type() == real,
                  "stdano: checkpoints must be those that the forward operator returned");

  Tensor grad_x = torch::stable::empty_like(x);
  Tensor grad_v0 = v.has_value() ? torch::stable::empty_like(layout) : no_tensor(x, real);
  Tensor grad_adapt0 = has_adapt && adapt.has_value() ? torch::stable::empty_like(layout) : no_tensor(x, real);
  const Kernels& kernels = *current_level().kernels;
  const bool by_channel = tau.has_value() || v_threshold.has_value() || soft_spike || real == ScalarType::Double;
  const int64_t slabs = kernels.slabs(call.g, by_channel);
  std::vector<double> partial(by_channel ? slabs * 2 * call.g.channels : 0, 0.0);

  call.x = x.const_data_ptr();
  call.v0 = data(v);
  call.adapt0 = data(adapt);
  call.tau = data(tau_table);
  call.threshold = data(threshold_table);
  call.checkpoints = checkpoints.const_data_ptr();
  call.grad_spikes = grad_spikes.const_data_ptr();
  call.grad_v = data(grad_v);
  call.grad_adapt = data(grad_adapt);
  call.grad_v_seq = data(grad_v_seq);
  call.grad_x = grad_x.mutable_data_ptr();
  call.grad_v0 = v.has_value() ? grad_v0.mutable_data_ptr() : nullptr;
  call.grad_adapt0 = has_adapt && adapt.has_value() ? grad_adapt0.mutable_data_ptr() : nullptr;
  call.grad_constants = partial.data();
  torch::stable::parallel_for(0, slabs, grain(call.g, slabs),
                              [&](int64_t begin, int64_t end) { kernels.backward(call, begin, end); });
  return {grad_x, grad_v0, grad_adapt0, sum_constants(tau, partial, slabs, call.g.channels, 0, x),
          sum_constants(v_threshold, partial, slabs, call.g.channels, 1, x)};
}

}  // namespace
}  // namespace stdano

STABLE_TORCH_LIBRARY_IMPL(stdano, CPU, m) {
  using namespace stdano;
  m.impl("lif_forward", TORCH_BOX(&forward<Neuron::lif>));
  m.impl("llif_forward", TORCH_BOX(&forward<Neuron::llif>));
  m.impl("slif_forward", TORCH_BOX(&forward<Neuron::slif>));
  m.impl("lif_backward", TORCH_BOX(&backward<Neuron::lif>));
  m.impl("llif_backward", TORCH_BOX(&backward<Neuron::llif>));
  m.impl("slif_backward", TORCH_BOX(&backward<Neuron::slif>));
}

STABLE_TORCH_LIBRARY_IMPL(stdano, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&stdano::cpu_capability));
}
