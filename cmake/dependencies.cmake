# The distribution's packages where they are installed (scripts/setup.sh installs them), else a pinned download.
include(FetchContent)
find_package(Threads REQUIRED)

# JSON headers: level files, the tree, the manifest.
find_package(nlohmann_json 3.11 QUIET)
if(NOT nlohmann_json_FOUND)
  FetchContent_Declare(nlohmann_json GIT_REPOSITORY https://github.com/nlohmann/json.git GIT_TAG v3.11.3)
  FetchContent_MakeAvailable(nlohmann_json)
endif()

# Result<T>: the standard's std::expected arrives with C++23.
find_path(TL_EXPECTED_INCLUDE_DIR tl/expected.hpp)
if(NOT TL_EXPECTED_INCLUDE_DIR)
  FetchContent_Declare(tl_expected GIT_REPOSITORY https://github.com/TartanLlama/expected.git GIT_TAG v1.1.0)
  FetchContent_GetProperties(tl_expected)
  if(NOT tl_expected_POPULATED)
    FetchContent_Populate(tl_expected)
  endif()
  set(TL_EXPECTED_INCLUDE_DIR ${tl_expected_SOURCE_DIR}/include)
endif()

# XXH3 block checksums. Header-only use: XXH_INLINE_ALL lets the compiler see the lengths.
find_path(XXHASH_INCLUDE_DIR xxhash.h)
if(NOT XXHASH_INCLUDE_DIR)
  FetchContent_Declare(xxhash GIT_REPOSITORY https://github.com/Cyan4973/xxHash.git GIT_TAG v0.8.2)
  FetchContent_GetProperties(xxhash)
  if(NOT xxhash_POPULATED)
    FetchContent_Populate(xxhash)
  endif()
  set(XXHASH_INCLUDE_DIR ${xxhash_SOURCE_DIR})
endif()

if(EDGE_BUILD_TESTS)
  find_package(GTest 1.12 QUIET)
  if(NOT GTest_FOUND)
    FetchContent_Declare(googletest GIT_REPOSITORY https://github.com/google/googletest.git GIT_TAG v1.14.0)
    FetchContent_MakeAvailable(googletest)
  endif()
endif()

# io_uring. Optional: without it reads run on threads. The archive where there is one, so that a wheel needs no liburing
# on its user's machine. No download: it has no CMake build, and its absence costs speed only.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  find_path(LIBURING_INCLUDE_DIR liburing.h)
  find_library(LIBURING_LIBRARY NAMES liburing.a uring)
  if(LIBURING_INCLUDE_DIR AND LIBURING_LIBRARY)
    set(EDGE_HAS_LIBURING ON)
  else()
    message(STATUS "liburing not found: direct reads run on threads (Debian: liburing-dev)")
  endif()
endif()

# The expressions by which tokenizers cut text: Unicode classes, lookahead, and limits on what a hostile one may cost.
# The archive where there is one, for the same reason.
find_path(PCRE2_INCLUDE_DIR pcre2.h)
find_library(PCRE2_LIBRARY NAMES libpcre2-8.a pcre2-8)
if(NOT PCRE2_INCLUDE_DIR OR NOT PCRE2_LIBRARY)
  set(PCRE2_BUILD_PCRE2GREP OFF CACHE INTERNAL "")
  set(PCRE2_BUILD_TESTS OFF CACHE INTERNAL "")
  FetchContent_Declare(pcre2 GIT_REPOSITORY https://github.com/PCRE2Project/pcre2.git GIT_TAG pcre2-10.42)
  FetchContent_MakeAvailable(pcre2)
  set(PCRE2_INCLUDE_DIR ${pcre2_BINARY_DIR})
  set(PCRE2_LIBRARY pcre2-8-static)
endif()

# Unicode's normal forms, which tokenizers ask for.
find_path(UTF8PROC_INCLUDE_DIR utf8proc.h)
find_library(UTF8PROC_LIBRARY NAMES libutf8proc.a utf8proc)
if(NOT UTF8PROC_INCLUDE_DIR OR NOT UTF8PROC_LIBRARY)
  FetchContent_Declare(utf8proc GIT_REPOSITORY https://github.com/JuliaStrings/utf8proc.git GIT_TAG v2.8.0)
  FetchContent_MakeAvailable(utf8proc)
  set(UTF8PROC_INCLUDE_DIR ${utf8proc_SOURCE_DIR})
  set(UTF8PROC_LIBRARY utf8proc)
endif()
