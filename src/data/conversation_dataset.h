// Data in the official LLaVA format: a JSON list, or one object a line (JSONL), of
//   {"id": ..., "image": FILE or "video": FILE OR FOLDER OF FRAMES,
//    "conversations": [{"from": "human"|"gpt", "value": ...}]}
// and pictures below a root folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/progress.h"
#include "data/sample.h"

namespace llava_mini {

struct ConversationDatasetOptions {
    /// Frames of a clip; of files and folders with more, evenly spread ones are taken (official training: 8;
    /// spread_frame_indices in media/frame_sampler.h).
    int max_frames = 16;
    /// Pictures with more pixels are refused from their header.
    uint64_t max_pixels = 178'956'970;
    /// Reading the list: done and total bytes; false stops. May be empty.
    Progress progress = {};
};

/// Samples of a file. Bad ones are left out and listed: a field missing or of a wrong type, turns that do not
/// alternate from human to gpt, an empty question or answer, a placeholder without a picture or more than
/// one, a path that leaves the root, a file or a folder of frames that is not there. The order is
/// the file's. Thread-safe.
///
/// `<image>` (of a video also `<video>`) may stand in one human turn; it is taken out together with the line
/// break beside it, for a prompt has it in front of the first question anyway. A sample without picture is
/// text only. "video" names a video's file, or a folder whose pictures, by name, are the frames. The key "types", which the
/// official code does not look at, may give a type for each question.
class ConversationDataset : public SampleSource {
  public:
    /// Throws Error(kInput) naming the file if it cannot be read, is no JSON, or holds no usable sample at
    /// all; a damaged line of a JSONL is a bad sample, damage elsewhere ends the reading.
    ConversationDataset(const std::filesystem::path& file, const std::filesystem::path& root,
                        const ConversationDatasetOptions& options = {});

    uint64_t size() const override { return records_.size(); }
    /// Reads and decodes the pictures. Throws Error(kInput) naming sample and file if one is damaged;
    /// Error(kUsage) beyond size().
    Sample sample(uint64_t number) const override;

    uint64_t index_of(uint64_t number) const override { return records_.at(number).index; }
    /// By place in the file.
    std::vector<SkippedSample> skipped() const override { return skipped_; }

  private:
    struct Record {
        uint64_t index;  // in the file
        std::string id;
        std::vector<std::filesystem::path> pictures;
        std::filesystem::path video;  // a file; empty: none
        std::vector<QaTurn> turns;
    };
    std::vector<Image> frames_of(const Record& record) const;
    class Reader;

    std::string file_;
    ConversationDatasetOptions options_;
    std::vector<Record> records_;
    std::vector<SkippedSample> skipped_;
};

}  // namespace llava_mini
