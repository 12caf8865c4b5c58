// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/* What bcc's own headers ask of the kernel's configuration. */
#define CONFIG_BPF_SYSCALL 1
