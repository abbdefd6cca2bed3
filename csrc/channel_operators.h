// The operators around channels: BatchNorm's statistics, and the passes of the super neuron. As in operators.h, what
// differs between backends is in `Device`.
#pragma once

#include "operators.h"

namespace stdano {

template <class Device>
struct ChannelOperators {
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

  using Codes = std::tuple<Tensor, Tensor>;

  static Codes encode(Tensor x, std::vector<std::string> kernels, std::vector<double> values, double alpha) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense(x);
    Tensor codes = empty_like(x, ScalarType::Byte);
    EncodeCall<typename Device::Kernels> call{};
    call.g = make_geometry(x, channels);
    call.dtype = kernel_dtype(x);
    call.members = make_members(kernels, values, alpha, x);
    Tensor counts =
        torch::stable::new_empty(x, {static_cast<int64_t>(call.members.size()), channels}, ScalarType::Double);
    call.x = x.const_data_ptr();
    call.codes = static_cast<uint8_t*>(codes.mutable_data_ptr());
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
                               std::vector<double> values, double alpha) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense(x);
    grad = with_layout_of(grad, x, "grad");
    check_table(table, 3 * static_cast<int64_t>(kernels.size()), x, "table");
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && codes.dim() == x.dim() && codes.numel() == x.numel() &&
                        codes.get_device_index() == x.get_device_index() && same_layout(codes, x),
                    "stdano: codes must be those that the forward operator returned for x");
    Tensor grad_x = torch::stable::empty_like(x);
    SuperBackwardCall<typename Device::Kernels> call{};
    call.g = make_geometry(x, channels);
    call.dtype = kernel_dtype(x);
    call.members = make_members(kernels, values, alpha, x);
    call.x = x.const_data_ptr();
    call.grad = grad.const_data_ptr();
    call.table = table.const_data_ptr();
    call.codes = static_cast<const uint8_t*>(codes.const_data_ptr());
    call.grad_x = grad_x.mutable_data_ptr();
    Device::super_backward(call, x);
    return grad_x;
  }

 private:
  static void check_members(int64_t members) {
    STD_TORCH_CHECK(members >= 1 && members <= kMostMembers, "stdano: a super neuron has 1 to ", kMostMembers,
                    " neurons, got ", members);
  }

  // `values`: the constants of all neurons, one after the other.
  static Members<typename Device::Kernels> make_members(const std::vector<std::string>& kernels,
                                                        const std::vector<double>& values, double alpha,
                                                        const Tensor& x) {
    check_members(static_cast<int64_t>(kernels.size()));
    Members<typename Device::Kernels> members;
    size_t next = 0;
    for (const std::string& name : kernels) {
      Member<typename Device::Kernels> member{Device::find(name, x), {}, alpha};
      for (int j = 0; j < member.kernels->constants; ++j) {
        STD_TORCH_CHECK(next < values.size(), "stdano: too few constants for ", kernels.size(), " neurons");
        member.constants.push_back({values[next++], nullptr, false});
      }
      members.push_back(std::move(member));
    }
    STD_TORCH_CHECK(next == values.size(), "stdano: too many constants for ", kernels.size(), " neurons");
    return members;
  }
};

}  // namespace stdano

#define STDANO_IMPLEMENT_CHANNELS(module, Device)                                                             \
  module.impl("channel_sums", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_sums)));                  \
  module.impl("channel_affine", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_affine)));              \
  module.impl("channel_affine_", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_affine_)));            \
  module.impl("super_neuron_encode", TORCH_BOX((&stdano::ChannelOperators<Device>::encode)));                 \
  module.impl("super_neuron_decode", TORCH_BOX((&stdano::ChannelOperators<Device>::decode)));                 \
  module.impl("super_neuron_sums", TORCH_BOX((&stdano::ChannelOperators<Device>::super_sums)));               \
  module.impl("super_neuron_backward", TORCH_BOX((&stdano::ChannelOperators<Device>::super_backward)))
