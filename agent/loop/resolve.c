#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/loop/loop_impl.h"
#include "agent/loop/pool.h"

const char *loop_address_text(const struct sockaddr *address, char buf[LOOP_ADDRESS_SIZE])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(buf, LOOP_ADDRESS_SIZE, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(buf, LOOP_ADDRESS_SIZE, "%s:%u", host, ntohs(v4->sin_port));
    }
    return buf;
}

static bool is_localhost(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || strcasecmp(host, "localhost.") == 0;
}

static int parse_port(const char *text)
{
    int port = 0;
    if (text[0] == '\0') {
        return -1;
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') {
            return -1;
        }
        port = port * 10 + (*p - '0');
        if (port > 65535) {
            return -1;
        }
    }
    return port;
}

bool loop_address_literal(const char *host, const char *port, struct sockaddr_storage *address, socklen_t *len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)address;
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    memset(address, 0, sizeof *address);
    if (is_localhost(host)) {
        host = "127.0.0.1";
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)parse_port(port));
        *len = sizeof *v4;
        return true;
    }
    if (strchr(host, ':') == NULL) {
        return false;
    }
    /* getaddrinfo for the sake of fe80::1%eth0; with these flags it asks nobody. */
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        return false;
    }
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

/* On a worker. */
static void look_up(struct hw_job *job)
{
    struct hw_resolve *r = hw_container_of(job, struct hw_resolve, job);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const struct addrinfo *use;
    int code = getaddrinfo(r->host, r->port, &hints, &found);
    if (code != 0) {
        char words[64] = "";
        const char *why = code == EAI_SYSTEM ? strerror_r(errno, words, sizeof words) : gai_strerror(code);
        snprintf(r->why, sizeof r->why, "%s", why);
        r->status = code == EAI_NONAME || code == EAI_NODATA ? HW_ERR_NOTFOUND
                    : code == EAI_MEMORY                     ? HW_ERR_NOMEM
                                                             : HW_ERR_UNAVAILABLE;
        return;
    }
    use = found;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next) {
        if (at->ai_family == AF_INET) {
            use = at;
            break;
        }
    }
    hw_assert(use->ai_addrlen <= sizeof r->address);
    memcpy(r->address, use->ai_addr, use->ai_addrlen);
    r->address_len = use->ai_addrlen;
    r->status = 0;
    freeaddrinfo(found);
}

static void look_up_done(struct hw_job *job)
{
    struct hw_resolve *r = hw_container_of(job, struct hw_resolve, job);
    r->done(r, r->status);
}

static void literal_done(struct hw_defer *d)
{
    struct hw_resolve *r = hw_container_of(d, struct hw_resolve, defer);
    r->done(r, 0);
}

int hw_resolve_start(struct hw_loop *loop, struct hw_pool *pool, struct hw_resolve *r, const char *host,
                     const char *port, void (*done)(struct hw_resolve *r, int status))
{
    struct sockaddr_storage address;
    socklen_t len;
    if (strlen(host) == 0 || strlen(host) >= sizeof r->host || parse_port(port) < 0 || strlen(port) >= sizeof r->port) {
        return HW_ERR_INVALID;
    }
    *r = (struct hw_resolve){.done = done};
    snprintf(r->host, sizeof r->host, "%s", host);
    snprintf(r->port, sizeof r->port, "%s", port);
    if (loop_address_literal(host, port, &address, &len)) {
        memcpy(r->address, &address, len);
        r->address_len = len;
        hw_defer_init(&r->defer, literal_done);
        hw_defer_post(loop, &r->defer);
        return 0;
    }
    if (pool == NULL || strchr(host, ':') != NULL) {
        return HW_ERR_INVALID;
    }
    r->job.work = look_up;
    r->job.done = look_up_done;
    return hw_pool_submit(pool, &r->job);
}

static int copy_part(const char *what, const char *from, size_t len, char *to, size_t size, const char *address,
                     struct hw_error *e)
{
    if (len == 0) {
        return hw_error_set(e, HW_ERR_INVALID, "address \"%s\": the %s is missing; write host:port", address, what);
    }
    if (len >= size) {
        return hw_error_set(e, HW_ERR_INVALID, "address \"%.64s...\": the %s is too long", address, what);
    }
    memcpy(to, from, len);
    to[len] = '\0';
    return 0;
}

int hw_address_split(const char *address, char *host, size_t host_size, char *port, size_t port_size,
                     struct hw_error *e)
{
    const char *start = address;
    const char *colon = strrchr(address, ':');
    const char *stop = colon;
    int r;
    if (address[0] == '[') {
        start = address + 1;
        stop = strchr(address, ']');
        if (stop == NULL || stop[1] != ':' || memchr(start, ':', (size_t)(stop - start)) == NULL) {
            return hw_error_set(e, HW_ERR_INVALID, "address \"%s\": write [IPv6 address]:port", address);
        }
        colon = stop + 1;
    } else if (colon == NULL) {
        return hw_error_set(e, HW_ERR_INVALID, "address \"%s\": the port is missing; write host:port", address);
    } else if (strchr(address, ':') != colon) {
        return hw_error_set(e, HW_ERR_INVALID, "address \"%s\": put an IPv6 address in brackets: [::1]:2379", address);
    }
    r = copy_part("host", start, (size_t)(stop - start), host, host_size, address, e);
    if (r == 0) {
        r = copy_part("port", colon + 1, strlen(colon + 1), port, port_size, address, e);
    }
    if (r == 0 && parse_port(port) < 0) {
        r = hw_error_set(e, HW_ERR_INVALID, "address \"%s\": the port must be a number from 0 to 65535", address);
    }
    return r;
}

bool hw_address_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (is_localhost(host)) {
        return true;
    }
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return (ntohl(v4.s_addr) >> 24) == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
    }
    return false;
}
