// The tensors of vision.gguf in the devices' memory.
#pragma once

#include <ggml-cpp.h>
#include <ggml.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/progress.h"
#include "model/gguf_file.h"
#include "model/hparams.h"
#include "model/tensor_names.h"

namespace llava_mini {

/// The tensors that a vision.gguf with this metadata holds. Throws one Error(kInput) naming all that are
/// missing, unknown, misshapen or of a type that they must not have.
std::vector<TensorSpec> checked_vision_tensors(const GgufFile& file, const VisionHparams& hparams);

/// Immutable after construction.
class VisionWeights {
  public:
    /// Loads a vision.gguf and checks it (checked_vision_tensors). The large matrices go where the backends
    /// multiply them fastest.
    VisionWeights(const GgufFile& file, Backends& backends, const Progress& progress = {});

    const VisionHparams& hparams() const { return hparams_; }
    /// A tensor of the table in model/tensor_names.h; null if it is optional and absent.
    ggml_tensor* find(const std::string& name) const;
    /// The same, for one that the constructor has made sure of.
    ggml_tensor* operator[](const std::string& name) const;
    /// Bytes of all tensors.
    uint64_t bytes() const { return bytes_; }

  private:
    VisionHparams hparams_;
    std::vector<ggml_context_ptr> contexts_;
    std::vector<ggml_backend_buffer_ptr> buffers_;
    std::map<std::string, ggml_tensor*> tensors_;
    uint64_t bytes_ = 0;
};

}  // namespace llava_mini
