// Files: read whole, mapped, or written aside and renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llava_mini {

/// Reads a regular file whole. Throws Error(kInput) if it is missing, no regular file (a directory, a FIFO,
/// a device), or longer than `max_bytes`.
std::vector<uint8_t> read_file(const std::filesystem::path& path, uint64_t max_bytes);

/// read_file as text.
std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes);

/// Writes a whole file, by AtomicFile.
void write_text_file(const std::filesystem::path& path, std::string_view text);

/// A file read at random offsets through a file descriptor (no mapping, so pages read do not count as the
/// process's memory). Const functions are thread-safe. Throws Error(kInput) unless it is a regular file.
class RandomAccessFile {
  public:
    explicit RandomAccessFile(const std::filesystem::path& path);
    ~RandomAccessFile();
    RandomAccessFile(const RandomAccessFile&) = delete;
    RandomAccessFile& operator=(const RandomAccessFile&) = delete;

    uint64_t size() const { return size_; }
    const std::filesystem::path& path() const { return path_; }
    /// Fills `out` from `offset`; throws Error(kInput) when the file ends before.
    void read(uint64_t offset, std::span<uint8_t> out) const;

  private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    uint64_t size_ = 0;
};

/// A file mapped read-only. Thread-safe after construction.
class MappedFile {
  public:
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    std::span<const uint8_t> bytes() const { return {data_, size_}; }
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

/// Writes `path` aside (NAME.aside in the same folder) and renames it on commit(); without a commit the file
/// aside is removed and what stood at `path` stays. One that a killed process left is taken over by the next. A
/// symbolic link stays, and the file it leads to is replaced. Not thread-safe.
class AtomicFile {
  public:
    /// Creates missing parent folders. Throws Error(kInput) if something other than a regular file stands at
    /// `path`, Error(kSystem) if the file aside cannot be made or another process is writing it.
    explicit AtomicFile(const std::filesystem::path& path);
    ~AtomicFile();
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;

    /// Appends. Throws Error(kSystem), e.g. when the disk is full.
    void write(std::span<const uint8_t> bytes);
    void write(std::string_view text);
    /// Bytes written so far.
    uint64_t size() const { return size_; }
    /// Flushes to disk and renames. Throws Error(kSystem).
    void commit();
    /// The name the data has until commit(), for libraries that write to a path themselves.
    const std::filesystem::path& path_aside() const { return aside_; }

  private:
    void open_aside();

    std::filesystem::path path_, aside_;
    int descriptor_ = -1;
    uint64_t size_ = 0;
};

}  // namespace llava_mini
