#include "core/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace llava_mini {
namespace {

const char* kind_of_file(mode_t mode) {
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a named pipe";
    if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
    if (S_ISSOCK(mode)) return "a socket";
    return "no regular file";
}

struct OpenFile {
    int descriptor;
    uint64_t size;
};

// O_NONBLOCK: opening a FIFO that nobody writes to would otherwise wait for ever.
OpenFile open_regular(const std::filesystem::path& path) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) throw_input("{}: cannot open: {}", path.string(), std::strerror(errno));
    struct stat status {};
    if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
        close(descriptor);
        throw_input("{}: expected a regular file, found {}", path.string(), kind_of_file(status.st_mode));
    }
    return {descriptor, static_cast<uint64_t>(status.st_size)};
}

template <typename Container>
Container read_whole(const std::filesystem::path& path, uint64_t max_bytes) {
    const RandomAccessFile file(path);
    if (file.size() > max_bytes) {
        throw_input("{}: the file has {} bytes, at most {} are accepted", path.string(), file.size(),
                    max_bytes);
    }
    Container content(file.size(), {});
    file.read(0, {reinterpret_cast<uint8_t*>(content.data()), content.size()});
    return content;
}

}  // namespace

std::vector<uint8_t> read_file(const std::filesystem::path& path, uint64_t max_bytes) {
    return read_whole<std::vector<uint8_t>>(path, max_bytes);
}

std::string read_text_file(const std::filesystem::path& path, uint64_t max_bytes) {
    return read_whole<std::string>(path, max_bytes);
}

RandomAccessFile::RandomAccessFile(const std::filesystem::path& path) : path_(path) {
    const OpenFile file = open_regular(path);
    descriptor_ = file.descriptor;
    size_ = file.size;
}

RandomAccessFile::~RandomAccessFile() {
    close(descriptor_);
}

void RandomAccessFile::read(uint64_t offset, std::span<uint8_t> out) const {
    size_t done = 0;
    while (done < out.size()) {
        const ssize_t n =
            pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw_system("{}: cannot read: {}", path_.string(), std::strerror(errno));
        if (n == 0) {
            throw_input("{}: the file ends at byte {}, expected data up to byte {}", path_.string(),
                        offset + done, offset + out.size());
        }
        done += static_cast<size_t>(n);
    }
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
    const OpenFile file = open_regular(path);
    size_ = file.size;
    if (size_ > 0) {
        void* address = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.descriptor, 0);
        if (address == MAP_FAILED) {
            const int error = errno;
            close(file.descriptor);
            throw_system("{}: cannot map: {}", path.string(), std::strerror(error));
        }
        data_ = static_cast<const uint8_t*>(address);
    }
    close(file.descriptor);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path) {
    std::error_code ignored;
    if (std::filesystem::is_symlink(path, ignored)) {
        const std::filesystem::path target = std::filesystem::weakly_canonical(path, ignored);
        if (!target.empty()) path_ = target;
    }
    struct stat status {};
    if (stat(path_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
        throw_input("{}: cannot be written: expected a regular file or none, found {}", path.string(),
                    kind_of_file(status.st_mode));
    }
    if (path_.has_parent_path()) std::filesystem::create_directories(path_.parent_path(), ignored);
    aside_ = path_.string() + ".aside";
    open_aside();
}

void AtomicFile::open_aside() {
    while (true) {
        descriptor_ = open(aside_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
        if (descriptor_ < 0) throw_system("{}: cannot write: {}", path_.string(), std::strerror(errno));
        const bool locked = flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
        // Whoever held the lock may have renamed the file after it was opened here: then it is theirs.
        struct stat opened {
        }, named{};
        const bool same = fstat(descriptor_, &opened) == 0 && stat(aside_.c_str(), &named) == 0 &&
                          opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
        if (locked && same && ftruncate(descriptor_, 0) == 0) return;
        const int error = errno;
        close(descriptor_);
        descriptor_ = -1;
        if (!same) continue;
        throw_system("{}: cannot write: {}", path_.string(),
                     locked ? std::strerror(error) : "another process is writing it");
    }
}

AtomicFile::~AtomicFile() {
    if (descriptor_ >= 0) {
        close(descriptor_);
        unlink(aside_.c_str());
    }
}

void AtomicFile::write(std::span<const uint8_t> bytes) {
    size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t n = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) throw_system("{}: cannot write: {}", path_.string(), std::strerror(errno));
        done += static_cast<size_t>(n);
    }
    size_ += bytes.size();
}

void AtomicFile::write(std::string_view text) {
    write({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

void AtomicFile::commit() {
    if (fsync(descriptor_) != 0) throw_system("{}: cannot write: {}", path_.string(), std::strerror(errno));
    // Renamed before it is closed: the lock is held until nobody can take the file for one aside.
    if (rename(aside_.c_str(), path_.c_str()) != 0) {
        throw_system("{}: cannot rename {} to it: {}", path_.string(), aside_.string(), std::strerror(errno));
    }
    const int descriptor = descriptor_;
    descriptor_ = -1;
    close(descriptor);  // all is on the disk
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
}

}  // namespace llava_mini
