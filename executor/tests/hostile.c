#define _GNU_SOURCE
/* Looks for what is not a payload's business; every line it prints is a find. Static, so that it runs anywhere. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static void reach(const char *host, int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    int answer = connect(fd, (struct sockaddr *)&to, sizeof to);
    /* Under way or refused by somebody: there is a network. */
    if (answer == 0 || errno == EINPROGRESS || (errno == ECONNREFUSED && strncmp(host, "127.", 4)))
        printf("FOUND the network: %s\n", host);
    close(fd);
}

static void meet(const char *name, int abstract) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) return;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strcpy(to.sun_path + abstract, name);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract;
    if (connect(fd, (struct sockaddr *)&to, length) == 0 || errno == ECONNREFUSED)
        if (!abstract) printf("FOUND the socket %s (%s)\n", name, strerror(errno));
    close(fd);
}

int main(void) {
    reach("169.254.169.254", 80);
    reach("10.96.0.1", 443);
    reach("8.8.8.8", 53);
    meet("/requiem/run/runner.sock", 0);
    meet("/proc/1/root/requiem/run/runner.sock", 0);
    for (int pid = 1; pid < 400; pid++) {
        if (pid == getpid() || pid == getppid()) continue;
        char byte;
        struct iovec to = {&byte, 1}, from = {(void *)main, 1};
        if (process_vm_readv(pid, &to, 1, &from, 1, 0) >= 0) printf("FOUND the memory of %d\n", pid);
        /* Process 1 is the run's own init where there is a namespace; elsewhere it is the runner. */
        if (pid == 1 && getppid() != 1 && kill(pid, 0) == 0) printf("FOUND that %d can be signalled\n", pid);
    }
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("FOUND descriptor %d\n", fd);
    struct stat input;
    /* A file without a name is a copy of its own. */
    if (fchmod(0, 0666) == 0 && fstat(0, &input) == 0 && input.st_nlink > 0) printf("FOUND that standard input can be changed\n");
    return 0;
}
