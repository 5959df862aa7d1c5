// A folder that is made for output and vanishes again, if it was not there before, when the output fails.
#pragma once

#include <filesystem>

namespace llava_mini {

class OutputFolder {
  public:
    /// Throws Error(kSystem) if the folder cannot be made, or something else is in its place.
    explicit OutputFolder(std::filesystem::path path);
    /// Without keep() removes what the constructor made, as long as it is empty.
    ~OutputFolder();
    OutputFolder(const OutputFolder&) = delete;
    OutputFolder& operator=(const OutputFolder&) = delete;

    void keep() { keep_ = true; }

  private:
    std::filesystem::path path_;
    bool keep_ = false;
};

}  // namespace llava_mini
