// The operators around channels: BatchNorm's statistics, and the passes of the super neuron. As in operators.h, what
// differs between backends is in `Device`.
#pragma once

#include "operators.h"

namespace stdano {

template <class Device>
struct ChannelOperators {
  using Kernels = typename Device::Kernels;

  static Tensor channel_sums(Tensor x) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense(x);
    Tensor sums = torch::stable::new_empty(x, {kChannelSums, channels}, ScalarType::Double);
    ChannelSumsCall call{make_geometry(x, channels), kernel_dtype(x), x.const_data_ptr(), nullptr};
    Device::channel_sums(call, sums);
    return sums;
  }

  static Tensor channel_affine(Tensor grad, Tensor x, Tensor table) {
    const typename Device::Guard guard(x);
    x = dense(x);
    Tensor out = torch::stable::empty_like(x);
    channel_affine_into(out, with_layout_of(grad, x, "grad"), x, table);
    return out;
  }

  // The same in place.
  static void channel_affine_(Tensor grad, Tensor x, Tensor table) {
    const typename Device::Guard guard(x);
    x = dense(x);
    const Tensor in_layout = with_layout_of(grad, x, "grad");
    STD_TORCH_CHECK(in_layout.const_data_ptr() == grad.const_data_ptr(),
                    "stdano: grad must have the layout of x where it is changed in place");
    channel_affine_into(grad, grad, x, table);
  }

  static void channel_affine_into(Tensor& out, const Tensor& grad, const Tensor& x, const Tensor& table) {
    check_table(table, 3, x, "table");
    Device::channel_affine({make_geometry(x, channels_of(x)), kernel_dtype(x), grad.const_data_ptr(),
                            x.const_data_ptr(), table.const_data_ptr(), out.mutable_data_ptr()},
                           x);
  }

  // BatchNorm and the neuron behind it, forward: what scan_forward returns, affine and moments.
  static std::tuple<Tensor, Tensors, Tensors, Tensor, Tensor, Tensor> norm_forward(
      Tensor x, Tensors state, Tensors constants, MaybeTensor weight, MaybeTensor bias, MaybeTensor running_mean,
      MaybeTensor running_var, bool training, double momentum, double eps, std::vector<int64_t> which,
      std::vector<double> values, double alpha, std::string kernel, bool save_checkpoints, bool return_state,
      std::vector<int64_t> sequences) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense_steps(x);
    Tensor affine = torch::stable::new_empty(x, {3, channels}, compute_dtype(x));
    Tensor moments = torch::stable::new_empty(x, {4, channels}, ScalarType::Double);
    const auto numbers = [&](const MaybeTensor& t, const char* name) { return numbers_of(t, {channels}, x, name); };
    const double copies = copies_of_a_step(x);
    const NormForwardCall norm{channels, values_per_channel(x) / copies, copies, eps, momentum, training,
                               numbers(weight, "weight"), numbers(bias, "bias"), numbers(running_mean, "running_mean"),
                               numbers(running_var, "running_var"), affine.mutable_data_ptr(),
                               moments.mutable_data_ptr<double>()};
    check_statistics(training, x, running_mean.has_value(), running_var.has_value());
    const auto run = [&](const ForwardCall<Kernels>& call, const Tensor& x) { Device::norm_forward(norm, call, x); };
    auto [spikes, final, values_of_states, checkpoints] =
        Operators<Device>::forward_by(run, x, state, constants, affine, which, values, alpha, kernel, save_checkpoints,
                                      return_state, sequences);
    return {spikes, final, values_of_states, checkpoints, affine, moments};
  }

  // And back: what scan_backward returns, with the gradients of weight and bias for sums.
  static std::tuple<Tensor, Tensors, Tensors, Tensor, Tensor> norm_backward(
      Tensor grad_spikes, Tensors grad_state, Tensors grad_sequences, Tensor x, Tensors state, Tensor checkpoints,
      Tensors constants, Tensor affine, Tensor moments, std::vector<int64_t> which, std::vector<double> values,
      double alpha, std::string kernel, std::vector<int64_t> sequences) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense_steps(x);
    Tensor table = torch::stable::new_empty(x, {3, channels}, compute_dtype(x));
    Tensor grad_weight = torch::stable::new_empty(x, {channels}, compute_dtype(x));
    Tensor grad_bias = torch::stable::empty_like(grad_weight);
    const NormBackwardCall norm{channels,
                                values_per_channel(x) / copies_of_a_step(x),
                                affine.const_data_ptr(),
                                moments_of(moments, {4, channels}, x),
                                table.mutable_data_ptr(),
                                grad_weight.mutable_data_ptr(),
                                grad_bias.mutable_data_ptr()};
    const auto run = [&](BackwardCall<Kernels>& call, const Tensor& x, Tensors& grad_constants) {
      Device::norm_backward(norm, call, x, which, grad_constants);
    };
    auto [grad_x, grad_state0, grad_constants] = Operators<Device>::backward_by(
        run, grad_spikes, grad_state, grad_sequences, x, state, checkpoints, constants, affine, which, values, alpha,
        kernel, sequences);
    return {grad_x, grad_state0, grad_constants, grad_weight, grad_bias};
  }

  using Codes = std::tuple<Tensor, Tensor>;

  static Codes encode(Tensor x, std::vector<std::string> kernels, std::vector<double> values) {
    const typename Device::Guard guard(x);
    x = dense(x);
    Tensor codes = empty_like(x, ScalarType::Byte);
    EncodeCall<Kernels> call = encode_call(x, codes, kernels, values);
    Tensor counts = torch::stable::new_empty(x, {static_cast<int64_t>(call.members.size()), channels_of(x)},
                                             ScalarType::Double);
    Device::encode(call, counts);
    return {codes, counts};
  }

  static Tensor decode(Tensor codes, Tensor table, Tensor like) {
    const typename Device::Guard guard(codes);
    const int64_t channels = channels_of(codes), members = table.size(0) - 1;
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && is_dense(codes), "stdano: codes must be dense uint8");
    check_members(members);
    check_table(table, 1 + members, like, "table");
    Tensor y = empty_like(codes, like.scalar_type());
    Device::decode({make_geometry(codes, channels), kernel_dtype(like), static_cast<int>(members),
                    static_cast<const uint8_t*>(codes.const_data_ptr()), table.const_data_ptr(), y.mutable_data_ptr()},
                   codes);
    return y;
  }

  static Tensor super_sums(Tensor codes, Tensor grad, int64_t members) {
    const typename Device::Guard guard(codes);
    const int64_t channels = channels_of(codes);
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && is_dense(codes), "stdano: codes must be dense uint8");
    check_members(members);
    grad = in_layout_of(grad, codes, "grad");
    Tensor sums = torch::stable::new_empty(codes, {1 + members, channels}, ScalarType::Double);
    SuperSumsCall call{make_geometry(codes, channels), kernel_dtype(grad), static_cast<int>(members),
                       static_cast<const uint8_t*>(codes.const_data_ptr()), grad.const_data_ptr(), nullptr};
    Device::super_sums(call, sums);
    return sums;
  }

  static Tensor super_backward(Tensor grad, Tensor x, Tensor codes, Tensor table, std::vector<std::string> kernels,
                               std::vector<double> values) {
    const typename Device::Guard guard(x);
    x = dense(x);
    grad = with_layout_of(grad, x, "grad");
    check_table(table, 3 * static_cast<int64_t>(kernels.size()), x, "table");
    Tensor grad_x = torch::stable::empty_like(x);
    Device::super_backward(backward_call(grad, x, codes, table, grad_x, kernels, values), x);
    return grad_x;
  }

  // The whole super neuron, y, codes and moments; and its way back, the gradients of x and of the weights.
  static std::tuple<Tensor, Tensor, Tensor> mixture_forward(Tensor x, Tensor weights, MaybeTensor running_mean,
                                                            MaybeTensor running_var, bool training, double momentum,
                                                            double eps, std::vector<std::string> kernels,
                                                            std::vector<double> values) {
    const typename Device::Guard guard(x);
    x = dense(x);
    const int64_t members = static_cast<int64_t>(kernels.size()), channels = channels_of(x);
    Tensor codes = empty_like(x, ScalarType::Byte), y = torch::stable::empty_like(x);
    Tensor table = torch::stable::new_empty(x, {1 + members, channels}, compute_dtype(x));
    Tensor moments = torch::stable::new_empty(x, {4, members, channels}, ScalarType::Double);
    EncodeCall<Kernels> call = encode_call(x, codes, kernels, values);
    const auto numbers = [&](const MaybeTensor& t, const char* name) {
      return numbers_of(t, {members, channels}, x, name);
    };
    const MixtureForwardCall mixture{channels,
                                     static_cast<int>(members),
                                     values_per_channel(x),
                                     eps,
                                     momentum,
                                     training,
                                     numbers_of(weights, {members}, x, "weights"),
                                     numbers(running_mean, "running_mean"),
                                     numbers(running_var, "running_var"),
                                     table.mutable_data_ptr(),
                                     moments.mutable_data_ptr<double>()};
    check_statistics(training, x, running_mean.has_value(), running_var.has_value());
    const DecodeCall decode{call.g,     call.dtype,             mixture.members,
                            call.codes, table.const_data_ptr(), y.mutable_data_ptr()};
    Device::mixture_forward(mixture, call, decode, x);
    return {y, codes, moments};
  }

  static Codes mixture_backward(Tensor grad, Tensor x, Tensor codes, Tensor moments, bool training,
                                std::vector<std::string> kernels, std::vector<double> values) {
    const typename Device::Guard guard(x);
    x = dense(x);
    grad = with_layout_of(grad, x, "grad");
    const int64_t members = static_cast<int64_t>(kernels.size()), channels = channels_of(x);
    Tensor grad_x = torch::stable::empty_like(x);
    Tensor grad_weights = torch::stable::new_empty(x, {members}, compute_dtype(x));
    Tensor of_weights = torch::stable::new_empty(x, {members, channels}, ScalarType::Double);
    Tensor table = torch::stable::new_empty(x, {3 * members, channels}, compute_dtype(x));
    const SuperBackwardCall<Kernels> call = backward_call(grad, x, codes, table, grad_x, kernels, values);
    if (x.numel() == 0) {
      torch::stable::zero_(grad_weights);
      return {grad_x, grad_weights};
    }
    SuperSumsCall sums{call.g, call.dtype, static_cast<int>(members), call.codes, call.grad};
    const MixtureBackwardCall mixture{channels, sums.members, values_per_channel(x), training,
                                      moments_of(moments, {4, members, channels}, x), table.mutable_data_ptr(),
                                      of_weights.mutable_data_ptr<double>(), grad_weights.mutable_data_ptr()};
    Device::mixture_backward(mixture, sums, call, x);
    return {grad_x, grad_weights};
  }

 private:
  // x is dense.
  static EncodeCall<Kernels> encode_call(const Tensor& x, Tensor& codes, const std::vector<std::string>& kernels,
                                         const std::vector<double>& values) {
    EncodeCall<Kernels> call{};
    call.g = make_geometry(x, channels_of(x));
    call.dtype = kernel_dtype(x);
    call.members = make_members(kernels, values, x);
    call.x = x.const_data_ptr();
    call.codes = static_cast<uint8_t*>(codes.mutable_data_ptr());
    return call;
  }

  static SuperBackwardCall<Kernels> backward_call(const Tensor& grad, const Tensor& x, const Tensor& codes,
                                                  const Tensor& table, Tensor& grad_x,
                                                  const std::vector<std::string>& kernels,
                                                  const std::vector<double>& values) {
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && codes.dim() == x.dim() && codes.numel() == x.numel() &&
                        codes.get_device_index() == x.get_device_index() && same_layout(codes, x),
                    "stdano: codes must be those that the forward operator returned for x");
    SuperBackwardCall<Kernels> call{};
    call.g = make_geometry(x, channels_of(x));
    call.dtype = kernel_dtype(x);
    call.members = make_members(kernels, values, x);
    call.x = x.const_data_ptr();
    call.grad = grad.const_data_ptr();
    call.table = table.const_data_ptr();
    call.codes = static_cast<const uint8_t*>(codes.const_data_ptr());
    call.grad_x = grad_x.mutable_data_ptr();
    return call;
  }

  static double values_per_channel(const Tensor& x) {
    return static_cast<double>(x.numel() / std::max<int64_t>(channels_of(x), 1));
  }

  static double copies_of_a_step(const Tensor& x) { return is_constant(x) ? static_cast<double>(x.size(0)) : 1; }

  // A contiguous tensor of numbers in the dtype of the state, or null.
  static void* numbers_of(const MaybeTensor& t, const std::vector<int64_t>& sizes, const Tensor& x, const char* name) {
    if (!t.has_value()) return nullptr;
    STD_TORCH_CHECK(has_sizes(*t, sizes) && t->scalar_type() == compute_dtype(x) && t->is_contiguous() &&
                        t->get_device_index() == x.get_device_index(),
                    "stdano: ", name, " must be a contiguous tensor of ", sizes.back(),
                    " numbers each, in the dtype of the state, on x's device");
    return t->mutable_data_ptr();
  }

  static const double* moments_of(const Tensor& moments, const std::vector<int64_t>& sizes, const Tensor& x) {
    STD_TORCH_CHECK(has_sizes(moments, sizes) && moments.scalar_type() == ScalarType::Double &&
                        moments.is_contiguous() && moments.get_device_index() == x.get_device_index(),
                    "stdano: moments must be those that the forward operator returned");
    return moments.const_data_ptr<double>();
  }

  static bool has_sizes(const Tensor& t, const std::vector<int64_t>& sizes) {
    if (t.dim() != static_cast<int64_t>(sizes.size())) return false;
    for (size_t d = 0; d < sizes.size(); ++d) {
      if (t.size(d) != sizes[d]) return false;
    }
    return true;
  }

  static void check_statistics(bool training, const Tensor& x, bool mean, bool var) {
    STD_TORCH_CHECK(!training || x.numel() > 0, "stdano: x must have values in training");
    STD_TORCH_CHECK(mean == var && (training || mean),
                    "stdano: running_mean and running_var must both be given, or in training both be left out");
  }

  static void check_members(int64_t members) {
    STD_TORCH_CHECK(members >= 1 && members <= kMostMembers, "stdano: a super neuron has 1 to ", kMostMembers,
                    " neurons, got ", members);
  }

  // `values`: the constants of each neuron and behind them its alpha, one neuron after the other.
  static Members<Kernels> make_members(const std::vector<std::string>& kernels, const std::vector<double>& values,
                                       const Tensor& x) {
    check_members(static_cast<int64_t>(kernels.size()));
    Members<Kernels> members;
    size_t next = 0;
    const auto take = [&] {
      STD_TORCH_CHECK(next < values.size(), "stdano: too few constants for ", kernels.size(), " neurons");
      return values[next++];
    };
    for (const std::string& name : kernels) {
      Member<Kernels> member{Device::find(name, x)};
      for (int j = 0; j < member.kernels->constants; ++j) member.constants.push_back({take()});
      member.alpha = take();
      members.push_back(std::move(member));
    }
    STD_TORCH_CHECK(next == values.size(), "stdano: too many constants for ", kernels.size(), " neurons");
    return members;
  }
};

}  // namespace stdano

#define STDANO_IMPLEMENT_CHANNELS(module, Device)                                                             \
  module.impl("norm_scan_forward", TORCH_BOX((&stdano::ChannelOperators<Device>::norm_forward)));             \
  module.impl("norm_scan_backward", TORCH_BOX((&stdano::ChannelOperators<Device>::norm_backward)));           \
  module.impl("super_neuron_forward", TORCH_BOX((&stdano::ChannelOperators<Device>::mixture_forward)));       \
  module.impl("super_neuron_gradients", TORCH_BOX((&stdano::ChannelOperators<Device>::mixture_backward)));    \
  module.impl("channel_sums", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_sums)));                  \
  module.impl("channel_affine", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_affine)));              \
  module.impl("channel_affine_", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_affine_)));            \
  module.impl("super_neuron_encode", TORCH_BOX((&stdano::ChannelOperators<Device>::encode)));                 \
  module.impl("super_neuron_decode", TORCH_BOX((&stdano::ChannelOperators<Device>::decode)));                 \
  module.impl("super_neuron_sums", TORCH_BOX((&stdano::ChannelOperators<Device>::super_sums)));               \
  module.impl("super_neuron_backward", TORCH_BOX((&stdano::ChannelOperators<Device>::super_backward)))
