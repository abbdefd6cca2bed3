// The operators that turn spikes into bits and back, for every compiled backend. `Device` runs a BitsCall.
#pragma once

#include <tuple>

#include "tensors.h"

namespace stdano {

template <class Device>
struct BitsOperators {
  // Values [n] as bits [planes][bytes of a plane]; which groups of values are wrong, being no whole number of 1/scale or
  // too large; and whether none is. That the host of a device does not know, since it would have to wait; on the CPU
  // `wrong` is empty, and the bits are of no use where they are not exact.
  static std::tuple<Tensor, Tensor, bool> pack(Tensor x, int64_t scale, int64_t planes) {
    const typename Device::Guard guard(x);
    STD_TORCH_CHECK(x.dim() == 1 && x.is_contiguous(), "stdano: x must be contiguous, of one dimension");
    STD_TORCH_CHECK(planes >= 1 && planes <= kMostPlanes, "stdano: planes must be 1 to ", kMostPlanes, ", got ", planes);
    check_scale(scale);
    const int64_t bytes = (x.numel() + 7) / 8;
    Tensor bits = torch::stable::new_empty(x, {planes, bytes}, ScalarType::Byte);
    Tensor wrong = torch::stable::new_empty(x, {Device::kMarksWrong ? groups(bytes) : 0}, ScalarType::Byte);
    BitsCall call{kernel_dtype(x), x.numel(), scale, static_cast<int>(planes)};
    call.values = const_cast<void*>(x.const_data_ptr());
    call.bits = bits.mutable_data_ptr<uint8_t>();
    call.plane = bytes;
    call.wrong = Device::kMarksWrong ? wrong.mutable_data_ptr<uint8_t>() : nullptr;
    const bool exact = x.numel() == 0 || Device::pack(call, x);
    return {bits, wrong, exact};
  }

  // All values of the bytes that are given, in the dtype and on the device of `like`.
  static Tensor unpack(Tensor bits, Tensor wrong, int64_t scale, Tensor like) {
    const typename Device::Guard guard(bits);
    STD_TORCH_CHECK(is_bytes(bits, like) && is_bytes(wrong, like) && bits.dim() == 2 && bits.size(0) >= 1 &&
                        bits.size(0) <= kMostPlanes && (bits.size(1) < 2 || bits.stride(1) == 1) && wrong.dim() == 1 &&
                        (wrong.numel() < 2 || wrong.stride(0) == 1) &&
                        (wrong.numel() == 0 || wrong.numel() >= groups(bits.size(1))),
                    "stdano: bits and wrong must be those that pack_spikes returned, on the device of like");
    check_scale(scale);
    Tensor values = torch::stable::new_empty(like, {8 * bits.size(1)});
    BitsCall call{kernel_dtype(like), values.numel(), scale, static_cast<int>(bits.size(0))};
    call.values = values.mutable_data_ptr();
    call.bits = const_cast<uint8_t*>(bits.const_data_ptr<uint8_t>());
    call.plane = bits.stride(0);
    call.wrong = wrong.numel() > 0 ? const_cast<uint8_t*>(wrong.const_data_ptr<uint8_t>()) : nullptr;
    if (call.count > 0) Device::unpack(call, like);
    return values;
  }

 private:
  static int64_t groups(int64_t bytes) { return (bytes + kGroupBytes - 1) / kGroupBytes; }

  static bool is_bytes(const Tensor& t, const Tensor& like) {
    return t.scalar_type() == ScalarType::Byte && t.get_device_index() == like.get_device_index();
  }

  static void check_scale(int64_t scale) {
    STD_TORCH_CHECK(scale >= 1 && scale < 1 << 20, "stdano: scale must be 1 to 2^20 - 1, got ", scale);
  }
};

}  // namespace stdano

#define STDANO_IMPLEMENT_BITS(module, Device)                                           \
  module.impl("pack_spikes", TORCH_BOX((&stdano::BitsOperators<Device>::pack)));        \
  module.impl("unpack_spikes", TORCH_BOX((&stdano::BitsOperators<Device>::unpack)))
