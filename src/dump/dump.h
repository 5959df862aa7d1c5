// Every stage of one prompt as an array, under the names of the recordings (tests/golden/README.md): the tool
// by which anybody can compare this program with the official code, stage by stage.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "llava_mini/llava_mini.hpp"

namespace llava_mini {

/// What is put through the model: at most one of `image` and `frames`; either `prompt` or `ids`.
struct DumpOptions {
    std::filesystem::path image = {};   ///< a picture's file
    std::filesystem::path frames = {};  ///< .npy, uint8 [frames, height, width, 3]: raw video frames
    /// Used as it is; one begin-of-text is put in front unless it starts with it.
    std::optional<std::string> prompt = {};
    /// .npy, integers [N]: exact token ids, kImageToken (-200) for the placeholder
    std::filesystem::path ids = {};
    ImageOptions image_options = {};
    /// The accidents of the official inference that matter here: text positions of any id <= 0 are masked and stay
    /// unfused, with "pad" the views of high resolution are padded one by one, and frames of a video are resized to
    /// 336 x 336 before the tower's own size.
    bool official_quirks = false;
    int greedy = 16;  ///< tokens generated after the prompt, always the likeliest, end tokens not obeyed
    int threads = 0;  ///< CPU threads of the language model; 0: the model's
};

struct DumpArray {
    std::string name;  ///< of the file, without .npy
    std::vector<int64_t> shape;
    std::variant<std::vector<float>, std::vector<int64_t>> values;
};

/// Computes, with F frames (1 for a picture), V views a frame, P patches a view, S pre-fusion positions, N
/// text tokens (the placeholder included), L rows of the language model and vocabulary size n_vocab:
///
///   input_ids [N]                         the token ids, -200 for the placeholder
///   pixel_values [F V, 3, size, size]     what the tower gets
///   vision_features [F V, P, d_v]         what it gives, without the class token
///   compressor_out [F, C^2, d_v]          compressor_attn [F, C^2, P or n^2 P]: mean over heads
///   projected_compressed [F, C^2, d]
///   prefusion_in [S, d]                   [blocks in map order | picture | compressed | plain text]
///   prefusion_out [S, d]                  the last layer, at all positions
///   prefusion_positions [S]               prefusion_visible [S]: 0 for a masked position
///   vision_tokens [F C^2, d]
///   fused_text [N, d]                     mean over the frames; masked rows are plain embeddings
///   inputs_embeds [L, d]                  logits_last [n_vocab]
///   greedy_ids [greedy]                   greedy_logits [greedy, n_vocab]: those each was chosen from
///
/// With several frames vision_features, prefusion_in and prefusion_out are also (the last two: only) given
/// frame by frame, with _frame0, _frame1 ... behind the name. The row of the placeholder in prefusion_in is
/// the embedding of token 0, as in the official code. A model without compressor or pre-fusion has no arrays
/// of that stage (fused_text is then the plain embeddings); without a picture there is nothing before
/// inputs_embeds but input_ids.
///
/// The language model runs with an f32 KV cache and without flash attention. The pre-fusion is as the model
/// was loaded: ModelOptions::prefusion_kv should be kF32. Throws Error(kUsage) for options that contradict
/// each other and Error(kInput) for bad files, two placeholders, a placeholder without picture, or a prompt
/// longer than the model allows. Nothing is cached. Thread-safe.
std::vector<DumpArray> dump_stages(const Model& model, const DumpOptions& options);

/// Writes every array as NAME.npy into the folder, which is made if missing. Arrays that another dump left there are
/// removed. Throws Error(kSystem).
void write_dump(const std::vector<DumpArray>& arrays, const std::filesystem::path& folder);

}  // namespace llava_mini
