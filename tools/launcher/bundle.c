/*
 * The door of a bundle: a static program, which runs where there are no libraries, and starts the launcher beside it
 * with the loader and the libraries that the bundle brings along.
 *
 *     bin/firecracker      this file
 *     lib/firecracker      launcher.c
 *     lib/ld-linux-x86-64.so.2, lib/libc.so.6, …
 *
 * The first word of the command line stays what it was, because clients find processes by it.
 */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

/* What stands before the program's own arguments: its name, the loader's options, the launcher. */
enum { OWN_WORDS = 6 };

static void cut_last(char *path)
{
    char *slash = strrchr(path, '/');

    if (slash != NULL)
        *slash = '\0';
}

int main(int argc, char *argv[])
{
    char self[PATH_MAX], base[PATH_MAX];
    char libraries[PATH_MAX + 8], loader[PATH_MAX + 64], launcher[2 * PATH_MAX];
    const char *name;
    char **words = calloc((size_t)argc + OWN_WORDS, sizeof *words);

    if (words == NULL || argc < 1 || realpath((const char *)getauxval(AT_EXECFN), self) == NULL) {
        perror("hibana: cannot find the folder of this program");
        return 1;
    }
    strcpy(base, self);
    cut_last(base);
    cut_last(base);
    name = strrchr(self, '/') + 1;
    snprintf(libraries, sizeof libraries, "%s/lib", base);
    snprintf(loader, sizeof loader, "%s/lib/" HIBANA_LOADER, base);
    snprintf(launcher, sizeof launcher, "%s/lib/%s", base, name);

    words[0] = argv[0];
    words[1] = "--library-path";
    words[2] = libraries;
    words[3] = "--argv0";
    words[4] = self;
    words[5] = launcher;
    memcpy(words + OWN_WORDS, argv + 1, (size_t)argc * sizeof *argv); /* with the NULL at the end */
    execv(loader, words);
    perror(loader);
    return 1;
}
