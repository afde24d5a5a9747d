/* Preloaded into the processes of a test: their wall clock is ahead by what the file named by
 * STEPPED_CLOCK holds, nanoseconds in eight bytes, read again at every call. The steady clock and
 * the kernel's timers are left alone. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead_ns;

__attribute__((constructor)) static void open_offset(void)
{
  const char *name = getenv("STEPPED_CLOCK");
  int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0) abort();
  void *page = mmap(NULL, sizeof *ahead_ns, PROT_READ, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) abort();
  ahead_ns = page;
  close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (failed || !ahead_ns || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
    return failed;
  int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + *ahead_ns;
  now->tv_sec = ns / 1000000000;
  now->tv_nsec = ns % 1000000000;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
  struct timespec precise;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *result)
{
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}
