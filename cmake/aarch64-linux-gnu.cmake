# Cross-compiles for 64-bit ARM Linux with Debian's compiler, and runs what is built through QEMU (make test-arm64).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# -p: pages of 16 KiB, as iOS and newer Android devices have: what assumes 4 KiB fails here.
find_program(EDGE_QEMU qemu-aarch64-static REQUIRED)
# LD_LIBRARY_PATH: the compiler's own C library, also where an arm64 package has brought another one: its loader with
# the other's threads hangs.
set(CMAKE_CROSSCOMPILING_EMULATOR
  ${EDGE_QEMU} -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=/usr/aarch64-linux-gnu/lib -p 16384)
