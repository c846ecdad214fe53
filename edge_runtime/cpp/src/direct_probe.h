// What a file system makes of reads that ask to skip the page cache, found out by asking it.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>

#include "file_descriptor.h"

namespace edge {

// A descriptor whose reads skip the page cache; or an invalid one, and why there is none.
struct Uncached {
  FileDescriptor fd;
  std::string reason;  // of the refusal; or what is known of the descriptor
};

// `buffered` is open on the same file, which `info` describes.
Uncached open_uncached(const std::string& path, int buffered, const struct stat& info);

// Whether reads through `fd` leave pages in the page cache, as they do where O_DIRECT was accepted and dropped. nullopt
// where that cannot be seen: the system does not say which pages are cached, or all that were looked at were before.
// `buffered` is open on the same file. Reads and drops a few pages of it.
std::optional<bool> fills_page_cache(int fd, int buffered, const std::string& path, const struct stat& info);

// The share of sampled pages that the page cache holds, in percent; nullopt where the system does not say.
std::optional<std::uint64_t> cached_percent(const std::string& path);

}  // namespace edge
