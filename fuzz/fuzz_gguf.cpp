// libFuzzer target: our loader of vision.gguf, metadata and tensor table.
#include <cstddef>
#include <cstdint>

#include "llava_mini/error.hpp"
#include "model/vision_weights.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static llava_mini::Backends backends(/*use_gpu=*/false, /*threads=*/1);
    try {
        const llava_mini::VisionWeights weights(llava_mini::GgufFile({data, size}, "fuzz"), backends);
    } catch (const llava_mini::Error&) {
    }
    return 0;
}
