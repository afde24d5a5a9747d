/* Loaded before ROS 2 from wheels (LD_PRELOAD, see `brainos up`).
 *
 * Fast DDS and rclpy wait for steady-clock deadlines. The wheels are built for a glibc older than
 * 2.30, where libstdc++ turns such a deadline into one of the wall clock: when that is set back by
 * an hour, every waiting thread sleeps an hour longer, heartbeats and the gate included. Here the
 * wait goes back to the steady clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define FOR_EVER_S 9000000000

static int64_t nanoseconds(const struct timespec *time)
{
  int64_t seconds = time->tv_sec < FOR_EVER_S ? time->tv_sec : FOR_EVER_S;
  return seconds * 1000000000 + time->tv_nsec;
}

static int64_t left(clockid_t clock, const struct timespec *deadline)
{
  struct timespec now;
  clock_gettime(clock, &now);
  return nanoseconds(deadline) - nanoseconds(&now);
}

static uint64_t magnitude(int64_t value)
{
  return value < 0 ? -(uint64_t)value : (uint64_t)value;
}

/* A condition may already wait on the steady clock (Python's do); its deadlines are near to it. */
int pthread_cond_timedwait(
  pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
  const struct timespec *restrict deadline)
{
  int64_t wall = left(CLOCK_REALTIME, deadline), steady = left(CLOCK_MONOTONIC, deadline);
  if (magnitude(steady) < magnitude(wall) || deadline->tv_nsec < 0 ||
      deadline->tv_nsec >= 1000000000)
    return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, deadline);
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  int64_t ns = nanoseconds(&until) + (wall > 0 ? wall : 0);
  until.tv_sec = ns / 1000000000;
  until.tv_nsec = ns % 1000000000;
  return pthread_cond_clockwait(condition, mutex, CLOCK_MONOTONIC, &until);
}
