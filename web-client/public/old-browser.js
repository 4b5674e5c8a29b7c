// Read only by browsers too old for modules: tells the visitor which browser to use instead of leaving the page blank.
document.getElementById('root').innerHTML =
  '<h1>浏览器版本太旧,不能参加视频会议</h1>' +
  '<p>请用新版的 Chrome、Edge、火狐或 Safari 打开这个链接。</p>' +
  '<p>用 360、QQ、搜狗浏览器时,请把地址栏右边的“兼容模式”换成“极速模式”。</p>';
