/** What to tell a person whose microphone or camera did not open: what happened, and what to press. */
export const permissionZh = {
  microphone: '话筒',
  camera: '摄像头',
  notAllowed: (device: string) => `浏览器没有允许使用${device}。请按下面的步骤打开`,
  systemDenied: (device: string) => `系统没有允许浏览器使用${device}。请在系统设置里打开`,
  notFound: (device: string) => `没有找到${device}。请检查是否接好，也可以不用它参加`,
  notReadable: (device: string) =>
    `${device}正被别的程序占用（如微信视频、其他会议软件）。关掉它，再点“重试”`,
  overconstrained: '原来选的设备不在了，已改用默认设备。请点“重试”',
  insecure: '这个地址不能使用话筒和摄像头。请用原来的会议链接打开（以 https 开头）',
  inApp: (device: string) => `这里打不开${device}。请在浏览器里打开这个链接`,
  aborted: (device: string) => `${device}没有打开。请点“重试”；仍不行，请重启浏览器`,
  dismissed: '您还没有选择。请点“重试”，再在弹出的窗口里点“允许”',
  stepsTitle: '这样打开',
  copyLink: '复制链接',
  linkCopied: '已复制',
  steps: {
    chromeDesktop: (device: string) => [
      '点地址栏左边的设置图标（两条横线或一把锁）',
      `把“${device}”改为“允许”`,
      '刷新页面，或点下面的“重试”',
    ],
    chineseBrowser: (device: string) => [
      '看地址栏右边：如果是“兼容模式”，请换成“极速模式”',
      `点地址栏左边的图标，把“${device}”改为“允许”`,
      '刷新页面',
    ],
    firefoxDesktop: (device: string) => [
      `点地址栏里划了斜线的${device}图标`,
      '点“已暂时阻止”旁边的叉，取消阻止',
      '点下面的“重试”，在弹出的窗口里点“允许”',
    ],
    safariMac: (device: string) => [
      '点屏幕顶部菜单“Safari 浏览器”→“网站设置”',
      `把“${device}”改为“允许”`,
      '刷新页面',
    ],
    safariIos: (device: string) => [
      '点地址栏里的“大小”或页面菜单图标 → “网站设置”',
      `把“${device}”改为“允许”`,
      `如果没有这一项：打开手机“设置”→“Safari 浏览器”→“${device}”→“允许”`,
    ],
    chromeAndroid: (device: string) => [
      '点地址栏左边的图标 → “权限”',
      `把“${device}”改为“允许”`,
      `如果没有这一项：打开手机“设置”→“应用”→ 浏览器 →“权限”→“${device}”`,
    ],
    harmony: (device: string) => [
      '打开手机“设置”→“隐私和安全”→“权限管理”',
      `点“${device}”，找到正在用的浏览器，改为“允许”`,
      '回到这里，点“重试”',
    ],
    inApp: () => ['点右上角的“…”', '选“在浏览器打开”', '在浏览器里重新进入会议'],
    unknown: (device: string) => [
      '打开浏览器的“网站设置”或“权限”',
      `把“${device}”改为“允许”`,
      '刷新页面',
    ],
    systemWindows: (device: string) => [
      `打开“设置”→“隐私和安全性”→“${device}”`,
      `打开“${device}访问权限”和“允许桌面应用访问${device}”`,
      '回到这里，点“重试”',
    ],
    systemMac: (device: string) => [
      `打开“系统设置”→“隐私与安全性”→“${device}”`,
      '打开浏览器旁边的开关',
      '重新打开浏览器，再进入会议',
    ],
    systemIos: (device: string) => [
      `打开手机“设置”→“隐私与安全性”→“${device}”`,
      '打开浏览器旁边的开关',
      '回到这里，点“重试”',
    ],
    systemAndroid: (device: string) => [
      `打开手机“设置”→“应用”→ 浏览器 →“权限”`,
      `把“${device}”改为“使用时允许”`,
      '回到这里，点“重试”',
    ],
    systemOther: (device: string) => [
      `打开系统设置里的隐私或权限一项，找到“${device}”`,
      '允许浏览器使用',
      '回到这里，点“重试”',
    ],
  },
};

export type PermissionWords = typeof permissionZh;
