/* Process 1 of a sandbox node and of a pod (the pause image). Static, no arguments needed.
 *   reaper [PROGRAM ARGS...]
 * Starts PROGRAM if given, reaps every orphan, and on SIGTERM or SIGINT passes SIGTERM to all
 * processes of its pid namespace, waits up to five seconds for them, and ends: as process 1
 * that ends the namespace. It stays when PROGRAM ends, as an operating system does.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
    if (sig != SIGCHLD)
        stopping = 1;
}

static int reap(void) /* 0 = no child is left */
{
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        ;
    return pid == 0;
}

int main(int argc, char **argv)
{
    struct sigaction act = {.sa_handler = on_signal};
    sigset_t handled, before;
    struct timespec tick = {.tv_nsec = 50000000};
    int i;

    /* Blocked except inside sigsuspend: no signal is lost between test and wait. */
    sigemptyset(&handled);
    sigaddset(&handled, SIGCHLD);
    sigaddset(&handled, SIGTERM);
    sigaddset(&handled, SIGINT);
    sigprocmask(SIG_BLOCK, &handled, &before);
    sigaction(SIGCHLD, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);

    if (argc > 1 && fork() == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        execvp(argv[1], argv + 1);
        _exit(127);
    }
    while (!stopping) {
        reap();
        sigsuspend(&before);
    }
    if (getpid() == 1)
        kill(-1, SIGTERM);
    for (i = 0; i < 100 && reap(); i++)
        sigtimedwait(&handled, NULL, &tick);
    return 0;
}
