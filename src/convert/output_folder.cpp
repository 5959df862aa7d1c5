#include "convert/output_folder.h"

#include "core/error.h"

namespace llava_mini {

OutputFolder::OutputFolder(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code error;
    keep_ = std::filesystem::is_directory(path_, error);
    if (!keep_ && !std::filesystem::create_directories(path_, error)) {
        throw_system("{}: cannot make the folder: {}", path_.string(),
                     error ? error.message() : "a file is there");
    }
}

OutputFolder::~OutputFolder() {
    std::error_code ignored;
    if (!keep_) std::filesystem::remove(path_, ignored);  // fails on a folder that is not empty
}

}  // namespace llava_mini
