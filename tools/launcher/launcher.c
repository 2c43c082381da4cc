/*
 * A program of Hibana: a Python interpreter that can do one thing, and looks like what it does.
 *
 * Clients find the VMM by its name and by the first word of its command line, and a Python script shows the interpreter
 * there. So each program is this file, compiled with the module whose `entry` it runs and with the folders to import
 * from; a folder that is not absolute is relative to the folder of the program, as in a bundle that can be moved.
 *
 * The interpreter is isolated: no environment, no user's packages, no `site`, UTF-8 whatever the locale. All folders
 * are given, so that Python searches for none of them. Nothing of this depends on /proc.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

static const char *const FOLDERS[] = {HIBANA_FOLDERS};
static const size_t FOLDER_COUNT = sizeof FOLDERS / sizeof *FOLDERS;

static void fail(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

/* Find the program's own file; a bundle's loader hands it over as argv[0]. */
static void find_self(char *const argv[], char self[PATH_MAX])
{
    const char *given = HIBANA_BUNDLED ? argv[0] : (const char *)getauxval(AT_EXECFN);
    if (given == NULL || realpath(given, self) == NULL)
        strncpy(self, argv[0], PATH_MAX - 1);
}

static wchar_t *decoded(const char *text)
{
    wchar_t *wide = Py_DecodeLocale(text, NULL);
    if (wide == NULL) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return wide;
}

/* Name a folder to import from. */
static wchar_t *folder(const char *self, const char *name)
{
    char path[2 * PATH_MAX];
    const char *slash = strrchr(self, '/');
    int length = slash == NULL ? 0 : (int)(slash - self + 1);

    if (name[0] == '/')
        length = 0;
    snprintf(path, sizeof path, "%.*s%s", length, self, name);
    return decoded(path);
}

static void preconfigure(void)
{
    PyPreConfig config;

    PyPreConfig_InitIsolatedConfig(&config);
    config.utf8_mode = 1;
    fail(Py_PreInitialize(&config));
}

static void initialize(int argc, char *argv[], const char *self)
{
    PyConfig config;
    wchar_t *here = decoded(self);
    wchar_t *standard_library = folder(self, FOLDERS[0]);

    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.install_signal_handlers = 1;
    config.module_search_paths_set = 1;
    for (size_t i = 0; i < FOLDER_COUNT; i++)
        fail(PyWideStringList_Append(&config.module_search_paths, folder(self, FOLDERS[i])));
    fail(PyWideStringList_Append(&config.argv, here));
    for (int i = 1; i < argc; i++)
        fail(PyWideStringList_Append(&config.argv, decoded(argv[i])));
    fail(PyConfig_SetString(&config, &config.program_name, here));
    fail(PyConfig_SetString(&config, &config.executable, here));
    fail(PyConfig_SetString(&config, &config.base_executable, here));
    fail(PyConfig_SetString(&config, &config.home, standard_library));
    fail(PyConfig_SetString(&config, &config.prefix, standard_library));
    fail(PyConfig_SetString(&config, &config.base_prefix, standard_library));
    fail(PyConfig_SetString(&config, &config.exec_prefix, standard_library));
    fail(PyConfig_SetString(&config, &config.base_exec_prefix, standard_library));
    fail(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

int main(int argc, char *argv[])
{
    char self[PATH_MAX] = "";
    PyObject *module, *result;

    find_self(argv, self);
    if (HIBANA_BUNDLED)
        prctl(PR_SET_NAME, strrchr(self, '/') ? strrchr(self, '/') + 1 : self, 0, 0, 0);
    preconfigure();
    initialize(argc, argv, self);
    module = PyImport_ImportModule(HIBANA_MODULE);
    result = module == NULL ? NULL : PyObject_CallMethod(module, "entry", NULL);
    if (result == NULL) {
        PyErr_Print();
        return 1;
    }
    return Py_FinalizeEx() < 0;
}
