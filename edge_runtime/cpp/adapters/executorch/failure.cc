#include "failure.h"

#include <executorch/runtime/platform/platform.h>

#include <cstdio>
#include <string_view>
#include <utility>

namespace edge::et {
namespace {

struct Failure {
  bool active = false;
  std::optional<Error> operator_error;
  std::string log_line;
};

thread_local Failure failure;

void emit_log_message(et_timestamp_t /*timestamp*/, et_pal_log_level_t level, const char* filename,
                      const char* /*function*/, std::size_t line, const char* message, std::size_t length) {
  if (level != et_pal_log_level_t::kError && level != et_pal_log_level_t::kFatal) {
    return;
  }
  if (failure.active && level == et_pal_log_level_t::kError) {
    if (failure.log_line.empty()) {
      failure.log_line.assign(message, length);
    }
    return;
  }
  // Outside a scope, or just before the runtime aborts: nobody else would say it.
  std::fprintf(stderr, "executorch: %s:%zu: %.*s\n", filename, line, static_cast<int>(length), message);
}

}  // namespace

void install_log_capture() {
  // Not register_pal: the wheel has called it already, and a second call logs a complaint at every start.
  const_cast<::executorch::runtime::PalImpl*>(::executorch::runtime::get_pal_impl())->emit_log_message =
      emit_log_message;
}

void keep_operator_error(Error error) {
  if (failure.active && !failure.operator_error) {
    failure.operator_error = std::move(error);
  }
}

FailureScope::FailureScope() { failure = Failure{.active = true, .operator_error = std::nullopt, .log_line = {}}; }

FailureScope::~FailureScope() { failure = Failure{}; }

tl::unexpected<Error> FailureScope::error(ErrorCode code, const std::string& what,
                                          ::executorch::runtime::Error status) const {
  if (failure.operator_error) {
    return tl::make_unexpected(*failure.operator_error);
  }
  std::string message = what + ": ExecuTorch error " + ::executorch::runtime::to_string(status);
  if (!failure.log_line.empty()) {
    message += " (" + failure.log_line + ")";
  }
  return fail(code, std::move(message));
}

}  // namespace edge::et
