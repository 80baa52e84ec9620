<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis styleCategories="Symbology" version="3.22.16-Białowieża">
  <renderer-v2 type="RuleRenderer">
    <rules key="{044cf8ec-c389-4279-9a13-223eed4743a2}">
      <rule filter="&quot;status&quot; = 'same' AND &quot;side&quot; = 'new'" symbol="0" label="same" key="{6a802326-2bc3-44c7-9368-9d44c7c02c43}" />
      <rule filter="&quot;status&quot; = 'changed' AND &quot;side&quot; = 'new'" symbol="1" label="changed" key="{5406d8f1-58fe-45bd-94ab-35fb9f9edf8f}" />
      <rule filter="&quot;status&quot; = 'moved' AND &quot;side&quot; = 'new'" symbol="2" label="moved" key="{3a68b6bf-ada0-4614-b1c4-c01cfb5745bf}" />
      <rule filter="&quot;status&quot; = 'split' AND &quot;side&quot; = 'new'" symbol="3" label="split" key="{eb191cf0-d9a1-45b8-85de-4ae1ed9f2f28}" />
      <rule filter="&quot;status&quot; = 'merged' AND &quot;side&quot; = 'new'" symbol="4" label="merged" key="{e077d41d-e46e-40ec-8de9-377acbd4a388}" />
      <rule filter="&quot;status&quot; IN ('new', 'only found')" symbol="5" label="new, or only found" key="{0b58226f-c875-4d45-890c-b123a76c3910}" />
      <rule filter="&quot;status&quot; IN ('gone', 'only in the map')" symbol="6" label="gone, or only in the map" key="{03e41578-4495-4c8f-93b7-b4b063f6ae2f}" />
      <rule filter="&quot;status&quot; = 'outside'" symbol="7" label="outside" key="{28182625-cf7b-44f4-8940-bea6cf70bf01}" />
      <rule filter="&quot;status&quot; = 'changed' AND &quot;side&quot; = 'old'" symbol="8" label="changed: old outline" key="{648470d8-df41-4432-9bf9-243e834c5269}" />
      <rule filter="&quot;status&quot; = 'moved' AND &quot;side&quot; = 'old'" symbol="9" label="moved: old outline" key="{40c7893f-04b6-4947-836d-2bc43612016a}" />
      <rule filter="&quot;status&quot; = 'split' AND &quot;side&quot; = 'old'" symbol="10" label="split: old outline" key="{fbfabce9-4c8c-4547-818f-3bd5b590f3f7}" />
      <rule filter="&quot;status&quot; = 'merged' AND &quot;side&quot; = 'old'" symbol="11" label="merged: old outline" key="{757a79d1-bcb6-49fa-a72c-eb880628d3c3}" />
    </rules>
    <symbols>
      <symbol name="0" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="141,147,156,40" />
            <Option name="outline_color" type="QString" value="141,147,156,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="1" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="230,159,0,110" />
            <Option name="outline_color" type="QString" value="230,159,0,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="10" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="0,114,178,0" />
            <Option name="outline_color" type="QString" value="0,114,178,255" />
            <Option name="outline_style" type="QString" value="dash" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="no" />
          </Option>
        </layer>
      </symbol>
      <symbol name="11" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="86,180,233,0" />
            <Option name="outline_color" type="QString" value="86,180,233,255" />
            <Option name="outline_style" type="QString" value="dash" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="no" />
          </Option>
        </layer>
      </symbol>
      <symbol name="2" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="204,121,167,120" />
            <Option name="outline_color" type="QString" value="204,121,167,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="3" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="0,114,178,110" />
            <Option name="outline_color" type="QString" value="0,114,178,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="4" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="86,180,233,90" />
            <Option name="outline_color" type="QString" value="86,180,233,255" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="5" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="0,158,115,150" />
            <Option name="outline_color" type="QString" value="0,158,115,255" />
            <Option name="outline_width" type="QString" value="0.5" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="6" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="213,94,0,150" />
            <Option name="outline_color" type="QString" value="213,94,0,255" />
            <Option name="outline_width" type="QString" value="0.5" />
            <Option name="style" type="QString" value="solid" />
          </Option>
        </layer>
      </symbol>
      <symbol name="7" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="201,205,210,150" />
            <Option name="outline_color" type="QString" value="201,205,210,255" />
            <Option name="outline_style" type="QString" value="dot" />
            <Option name="outline_width" type="QString" value="0.3" />
            <Option name="style" type="QString" value="b_diagonal" />
          </Option>
        </layer>
      </symbol>
      <symbol name="8" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="230,159,0,0" />
            <Option name="outline_color" type="QString" value="230,159,0,255" />
            <Option name="outline_style" type="QString" value="dash" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="no" />
          </Option>
        </layer>
      </symbol>
      <symbol name="9" type="fill" alpha="1">
        <layer class="SimpleFill" enabled="1">
          <Option type="Map">
            <Option name="color" type="QString" value="204,121,167,0" />
            <Option name="outline_color" type="QString" value="204,121,167,255" />
            <Option name="outline_style" type="QString" value="dash" />
            <Option name="outline_width" type="QString" value="0.4" />
            <Option name="style" type="QString" value="no" />
          </Option>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
  <blendMode>0</blendMode>
  <featureBlendMode>0</featureBlendMode>
  <layerGeometryType>2</layerGeometryType>
</qgis>
