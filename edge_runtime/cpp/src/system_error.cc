#include "system_error.h"

#include <cerrno>
#include <system_error>

namespace edge {

tl::unexpected<Error> system_error(const std::string& path, const std::string& what, int error) {
  return fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
              path + ": " + what + ": " + std::generic_category().message(error));
}

}  // namespace edge
